// Owns the search for a player on a board. Looks in the rows at hand first, then once in the server's first 1,000.
import { getJson } from '../server.js';
import { found, match } from '../model/player-match.js';

/** {player, words}: who that is, or null, and the sentence to show, with scores as `leaderboard` has them. */
export async function find(words, board, entries, ranks, leaderboard) {
  const at = match(entries, words);
  if (at >= 0) {
    const player = { ...entries[at], rank: ranks[at] };
    return { player, words: found(player, true, leaderboard) };
  }
  let many = entries.length >= 100;
  if (many) {
    try {
      const page = await getJson(`boards/${encodeURIComponent(board)}?limit=1000`);
      const there = match(page.entries, words);
      if (there >= 0) return { player: page.entries[there], words: found(page.entries[there], false, leaderboard) };
      many = page.players > page.entries.length;
    } catch {
      return { player: null, words: `No player called “${words}” in the top 100.` };
    }
  }
  return { player: null, words: `No player called “${words}” ${many ? 'in the top 1,000' : 'on this board'}. Check the spelling.` };
}
