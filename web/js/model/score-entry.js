// Owns how a player hands in a score of any leaderboard: which field there is, and what is sent for what was typed. Pure.
// Assumes leaderboards as `readLeaderboard` answers them.
import { scoreText } from './format.js';
import { formatScore, parseScore } from './score-format.js';

const INT_MAX = 2_147_483_647; // of one submission to `default`
const LIKE = {
  integer: () => 'A whole number.',
  decimal: ({ places = 0 }) => (places ? `With up to ${places} ${places === 1 ? 'decimal' : 'decimals'}, like ${formatScore({ kind: 'decimal', places }, 125 * 10 ** (places - 1))}.` : LIKE.integer()),
  duration: ({ unit }) => (unit === 'ms' ? 'Minutes and seconds, like 1:02.345.' : 'Minutes and seconds, like 1:02.'),
};

/** What one submission may be, {min, max}; players add no less than the smallest amount. */
function bounds(leaderboard) {
  const { operator, slug, bounds: said } = leaderboard;
  const usual = operator === 'sum' ? { min: 1, max: slug === 'default' ? INT_MAX : Number.MAX_SAFE_INTEGER } : { min: -Number.MAX_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER };
  return { min: Math.max(usual.min, said?.min ?? usual.min), max: Math.min(usual.max, said?.max ?? usual.max) };
}

const isPoints = ({ operator, format }) => operator === 'sum' && format.kind === 'integer';

/** How the field looks: {hasScore, label, hint, type, value, min, max, button}. */
export function entryOf(leaderboard) {
  const { operator, format } = leaderboard;
  if (operator === 'count') return { hasScore: false, label: '', hint: '', type: 'text', value: '', min: '', max: '', button: 'Add one' };
  const { min, max } = bounds(leaderboard);
  if (isPoints(leaderboard)) return { hasScore: true, label: 'Points', hint: '', type: 'number', value: Math.min(max, Math.max(min, 100)), min, max, button: 'Add points' };
  const label = format.kind === 'duration' ? 'Time' : 'Score';
  const like = (LIKE[format.kind] ?? LIKE.integer)(format);
  return { hasScore: true, label, hint: like, type: 'text', value: '', min: '', max: '', button: operator === 'sum' ? 'Add' : 'Hand in' };
}

/** {fields, score, refusal}: what to submit for what was typed, the score itself, and why it is none, '' where it is one. */
export function readEntry(leaderboard, typed) {
  const { operator, format } = leaderboard;
  if (operator === 'count') return { fields: {}, score: 1, refusal: '' };
  const score = parseScore(format, typed);
  if (score === null) return { fields: null, score, refusal: `This is no score. ${entryOf(leaderboard).hint || LIKE.integer()}` };
  const { min, max } = bounds(leaderboard);
  if (score < min) return { fields: null, score, refusal: `The least that counts is ${scoreText(leaderboard, min)}.` };
  if (score > max) return { fields: null, score, refusal: `The most that counts is ${scoreText(leaderboard, max)}.` };
  return { fields: operator === 'sum' ? { score_added: score } : { score }, score, refusal: '' };
}
