// Owns the search for a player on a board. Looks in the rows at hand first, then once in the server's first 1,000.
import { getJson } from '../server.js';
import { amount, points } from '../model/format.js';

/** Without regard to case, form and what cannot be seen, in the same way whatever the viewer's language. Capitals, for
 * these have no ß, no dotless i and no final sigma; from small letters, for ẞ has no other capital. */
const fold = (text) => text.normalize('NFKD').replace(/\p{DI}/gu, '').toLowerCase().toUpperCase().normalize('NFKD');

/** Without marks too: as people type who have no key for them. */
const bare = (text) => fold(text).replace(/\p{M}/gu, '');

const FITS = [(name, wanted) => name === wanted, (name, wanted) => name.startsWith(wanted), (name, wanted) => name.includes(wanted)];

/** The best row for `words`: the whole name, then its beginning, then any part of it; with its marks rather than without. */
export function match(entries, words) {
  const forms = [fold, bare].map((form) => ({ wanted: form(words.trim()), names: entries.map(({ username }) => form(username)) }));
  for (const fits of FITS) {
    for (const { wanted, names } of forms) {
      const at = wanted ? names.findIndex((name) => fits(name, wanted)) : -1;
      if (at >= 0) return at;
    }
  }
  return -1;
}

export const found = ({ username, rank, score }, onBoard) =>
  onBoard ? `${username} is rank ${amount(rank)} with ${points(score)}.` : `${username} is rank ${amount(rank)}, outside the top 100.`;

/** {player, words}: who that is, or null, and the sentence to show. */
export async function find(words, board, entries, ranks) {
  const at = match(entries, words);
  if (at >= 0) {
    const player = { ...entries[at], rank: ranks[at] };
    return { player, words: found(player, true) };
  }
  let many = entries.length >= 100;
  if (many) {
    try {
      const page = await getJson(`boards/${encodeURIComponent(board)}?limit=1000`);
      const there = match(page.entries, words);
      if (there >= 0) return { player: page.entries[there], words: found(page.entries[there], false) };
      many = page.players > page.entries.length;
    } catch {
      return { player: null, words: `No player called “${words}” in the top 100.` };
    }
  }
  return { player: null, words: `No player called “${words}” ${many ? 'in the top 1,000' : 'on this board'}. Check the spelling.` };
}
