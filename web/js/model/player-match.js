// Owns whom among some players a viewer means by what they typed, and the sentence about the one who was found. Pure.
import { amount, scoreWords } from './format.js';

/** Without regard to case, form and what cannot be seen, in the same way whatever the viewer's language. Capitals, for
 * these have no ß, no dotless i and no final sigma; from small letters, for ẞ has no other capital. */
const fold = (text) => text.normalize('NFKD').replace(/\p{DI}/gu, '').toLowerCase().toUpperCase().normalize('NFKD');

/** Without marks too: as people type who have no key for them. */
const bare = (text) => fold(text).replace(/\p{M}/gu, '');

const FITS = [(name, wanted) => name === wanted, (name, wanted) => name.startsWith(wanted), (name, wanted) => name.includes(wanted)];

/** The best row for `words`: the whole name, then its beginning, then any part of it; with its marks rather than without. */
export const match = (entries, words) => best(entries, words, FITS);

/** The row of whom `words` are the whole name. */
export const whole = (entries, words) => best(entries, words, FITS.slice(0, 1));

function best(entries, words, allowed) {
  const forms = [fold, bare].map((form) => ({ wanted: form(words.trim()), names: entries.map(({ username }) => form(username)) }));
  for (const fits of allowed) {
    for (const { wanted, names } of forms) {
      const at = wanted ? names.findIndex((name) => fits(name, wanted)) : -1;
      if (at >= 0) return at;
    }
  }
  return -1;
}

/** `onBoard`: whether the player is among the top 100; `leaderboard`: as `subscribed` describes it. */
export const found = ({ username, rank, score }, onBoard, leaderboard) =>
  onBoard ? `${username} is rank ${amount(rank)} with ${scoreWords(leaderboard, score)}.` : `${username} is rank ${amount(rank)}, outside the top 100.`;
