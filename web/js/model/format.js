// Owns every number, date and sentence that several pages show, in the viewer's locale. Never touches the DOM.
// Assumes board ids as the server names them, weeks of `default` that begin on Monday 00:00 UTC, and leaderboards as
// `subscribed` describes them: undefined is `default`.
import { formatScore } from './score-format.js';

const DAY = 86_400_000;
const WEEK = 7 * DAY;
const MONDAY = 4 * DAY; // 5 January 1970

const plain = new Intl.NumberFormat();
const signs = new Intl.NumberFormat(undefined, { signDisplay: 'exceptZero' });
const seconds = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const minutes = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const weekdays = new Intl.DateTimeFormat(undefined, { weekday: 'long', timeZone: 'UTC' });
const months = new Intl.DateTimeFormat(undefined, { month: 'long', timeZone: 'UTC' });
const [days, daysInFull] = [undefined, 'numeric'].map((year) => new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year, timeZone: 'UTC' }));

export const amount = (value) => plain.format(value);
export const gain = (value) => signs.format(value);
export const clockTime = (ms) => seconds.format(ms);
export const shortTime = (ms) => minutes.format(ms);
export const points = (value) => `${amount(value)} ${Math.abs(value) === 1 ? 'point' : 'points'}`;
export const players = (value) => `${amount(value)} ${value === 1 ? 'player' : 'players'}`;

// ---- scores

const isWhole = (leaderboard) => (leaderboard?.format?.kind ?? 'integer') === 'integer';
const isPoints = (leaderboard) => isWhole(leaderboard) && (leaderboard?.slug ?? 'default') === 'default';
const isAscending = (leaderboard) => leaderboard?.order === 'ascending';

export const scoreText = (leaderboard, score) => (isWhole(leaderboard) ? amount(score) : formatScore(leaderboard.format, score));

/** By how much a score changed: "+240", "+12.50", "-1.250". */
export function gainText(leaderboard, by) {
  if (isWhole(leaderboard)) return gain(by);
  return `${by > 0 ? '+' : by < 0 ? '-' : ''}${brief(formatScore(leaderboard.format, Math.abs(by)))}`;
}

/** Less than a minute without its minutes. */
const brief = (text) => text.replace(/^0:0?(?=\d)/, '');

/** A score within a sentence: "1,200 points", "1:02.345". */
export const scoreWords = (leaderboard, score) => (isPoints(leaderboard) ? points(score) : scoreText(leaderboard, score));

/** What stands behind a score for those who hear it. */
export const unitWords = (leaderboard) => (isPoints(leaderboard) ? ' points' : '');

/** How far two scores are from each other: "140 points", "12.50", "1.250 s". */
export function apart(leaderboard, by) {
  const text = scoreWords(leaderboard, by);
  return leaderboard?.format?.kind === 'duration' && text.startsWith('0:') ? `${brief(text)} s` : text;
}

/** How much of the leader's bar a score draws, 0 to 1. Where less is better, twice the leader's draws half. */
export function share(leaderboard, score, leading) {
  const [part, whole] = isAscending(leaderboard) ? [leading, score] : [score, leading];
  return leading > 0 && whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

/** Whether rows that were written by one rule may stay under the other. */
export const isWrittenAlike = (one, other) =>
  one === other || (isAscending(one) === isAscending(other) && JSON.stringify(one?.format) === JSON.stringify(other?.format));

/** What a submission carried beside its score: "car gt · wet"; '' where there is nothing. */
export function metadataWords(metadata) {
  const words = ([name, value]) => {
    if (typeof value === 'boolean') return value ? name : `not ${name}`;
    return `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`;
  };
  return Object.entries(metadata ?? {}).map(words).join(' · ');
}

// ---- days and weeks

export const dayName = (first) => days.format(first);
export const dayNameInFull = (first) => daysInFull.format(first);

/** In UTC where this device knows no such zone. */
function inZone(timeZone, parts) {
  try {
    return new Intl.DateTimeFormat(undefined, { ...parts, timeZone });
  } catch {
    return new Intl.DateTimeFormat(undefined, { ...parts, timeZone: 'UTC' });
  }
}

/** The day of a moment in a time zone, with the year. */
export const dayIn = (zone, ms) => inZone(zone, { dateStyle: 'long' }).format(ms);

export const weekdayName = (first) => weekdays.format(first);
export const monthName = (first) => months.format(first);

/** The start of a weekly board in milliseconds, or null for any other board. */
export function weekStart(board) {
  const found = /week_of_(\d{4})_(\d\d)_(\d\d)$/.exec(board ?? '');
  return found ? Date.UTC(found[1], found[2] - 1, found[3]) : null;
}

export const weekEnd = (start) => start + WEEK;
export const weekAt = (ms) => Math.floor((ms - MONDAY) / WEEK) * WEEK + MONDAY;

/** ISO 8601: the week belongs to the year of its Thursday, be its Monday in the year before. */
export const weekYear = (start) => new Date(start + 3 * DAY).getUTCFullYear();

export const weekNumber = (start) => 1 + Math.floor((start + 3 * DAY - Date.UTC(weekYear(start), 0, 1)) / WEEK);

export const weekName = (start) => `Week ${weekNumber(start)}`;
export const weekNameInFull = (start) => `${weekName(start)}, ${weekYear(start)}`;

/** "20 – 26 July", with the year where it is not the year of `now`; from `first` to `last`, both milliseconds since 1970. */
export function daysBetween(first, last, now, zone = 'UTC') {
  const sameYear = new Date(first).getUTCFullYear() === new Date(now).getUTCFullYear();
  return inZone(zone, { day: 'numeric', month: 'long', year: sameYear ? undefined : 'numeric' }).formatRange(first, last);
}

/** What is left of `ms`, in whole days, hours, minutes and seconds; never negative. */
export function remaining(ms) {
  const left = Math.max(0, Math.ceil(ms / 1000));
  return { d: Math.floor(left / 86_400), h: Math.floor(left / 3600) % 24, m: Math.floor(left / 60) % 60, s: left % 60 };
}

/** Where a player on the shown board stands: the words under the name in the bar of the one who is followed. */
export function distance(entries, ranks, index, leaderboard) {
  const score = entries[index].score;
  const far = (other) => apart(leaderboard, Math.abs(other - score));
  if (ranks[index] === 1) {
    if (ranks.filter((rank) => rank === 1).length > 1) return 'You share the lead';
    const next = entries[index + 1]?.score ?? score;
    return next === score ? 'You lead' : `You lead by ${far(next)}`;
  }
  const above = ranks.lastIndexOf(ranks[ranks.indexOf(ranks[index]) - 1]);
  const level = entries[above].score === score; // where equal scores share no rank
  return level ? `Level with rank ${amount(ranks[above])}` : `${far(entries[above].score)} to rank ${amount(ranks[above])}`;
}
