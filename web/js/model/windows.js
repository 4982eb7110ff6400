// Owns what an id says of its board: whose it is, which window, from which day on; and how windows are called. Never touches
// the DOM. Assumes ids as the server names them, and that a week's number is ISO 8601's where it begins on a Monday.
import { dayName, dayNameInFull, daysBetween, monthName, weekAt, weekdayName, weekEnd, weekName, weekNameInFull, weekStart, weekYear } from './format.js';

const DAY_MS = 86_400_000;

/** Kinds of windows that end, in the order in which they are offered. */
export const KINDS = ['day', 'week', 'month', 'season', 'year'];

const ID = /^(?:([a-z][a-z0-9-]*):)?(?:(all_time)|(current|previous)_(day|week|month|year|season)|(day|week|month|year)_of_(\d{4})(?:_(\d\d))?(?:_(\d\d))?(?:_([1-9]\d?))?|season_([a-z0-9_]+))$/;

const CURRENT = { day: 'Today', week: 'This week', month: 'This month', season: 'This season', year: 'This year', all_time: 'All time' };
const PREVIOUS = { day: 'Yesterday', week: 'Last week', month: 'Last month', season: 'Last season', year: 'Last year' };
const SHORT = { day: 'Today', week: 'Week', month: 'Month', season: 'Season', year: 'Year', all_time: 'All time' };
const MANY = { day: 'Days', week: 'Weeks', month: 'Months', season: 'Seasons', year: 'Years' };
const WITHIN = { day: 'on this day', week: 'in this week', month: 'in this month', season: 'in this season', year: 'in this year' };

/**
 * {slug, kind, which, first, nth, season}: `which` is 'current' or 'previous' for an alias, else null; `first` is the first day
 * in milliseconds, as if it were UTC's, null where the id names none; `nth` is 2 for the second window of that day, which there
 * is where a zone was changed. `kind` is null where this is no id.
 */
export function parse(board) {
  const [, slug = 'default', all, which = null, alias, calendar, year, month = '01', day = '01', nth = 1, season = null] = ID.exec(board ?? '') ?? [];
  return {
    slug, which, season, nth: Number(nth),
    kind: all ?? alias ?? calendar ?? (season === null ? null : 'season'),
    first: calendar ? Date.UTC(year, month - 1, day) : null,
  };
}

export const boardIn = (slug, window) => (slug === 'default' ? window : `${slug}:${window}`);

/** The name of a kind of windows: of the running one, as briefly as can be, or of many. */
export const kindName = (kind, isShort = false) => (isShort ? SHORT : CURRENT)[kind];
export const kindNames = (kind) => MANY[kind];

/** "in this week", "on this day". */
export const within = (kind) => WITHIN[kind] ?? 'on this board';

const isMonday = (first) => new Date(first).getUTCDay() === 1;
const season = (name) => `Season ${name.replaceAll('_', ' ')}`;

const NAMES = {
  day: (first) => [dayName(first), dayNameInFull(first)],
  week: (first) => (isMonday(first) ? [weekName(first), weekNameInFull(first)] : [`Week of ${dayName(first)}`, `Week of ${dayNameInFull(first)}`]),
  month: (first) => [monthName(first), `${monthName(first)} ${new Date(first).getUTCFullYear()}`],
  year: (first) => Array(2).fill(String(new Date(first).getUTCFullYear())),
};

/** "Week 48", "30 November", "This week", "Season spring 26"; `inFull` with the year. An id that is none names itself. */
export function windowName(board, inFull = false) {
  const { kind, which, first, nth, season: id } = parse(board);
  if (kind === null) return board;
  if (which === 'previous') return PREVIOUS[kind];
  if (id !== null) return season(id);
  if (first === null) return CURRENT[kind];
  return NAMES[kind](first)[Number(inFull)] + (nth > 1 ? ` (${nth})` : '');
}

/** The same within a sentence: "in week 48", "on 30 November", "in November". */
export function inWindow(board) {
  const { kind } = parse(board);
  const name = windowName(board);
  return kind === 'day' ? `on ${name}` : kind === 'month' || kind === null ? `in ${name}` : `in ${name[0].toLowerCase()}${name.slice(1)}`;
}

/** The calendar's year under which a window is listed; a week's is that of ISO 8601. Null where it has none. */
export function yearOf(board) {
  const { kind, first } = parse(board);
  if (first === null || kind === 'year') return null;
  return kind === 'week' && isMonday(first) ? weekYear(first) : new Date(first).getUTCFullYear();
}

/**
 * When the window of a board runs: {starts, ends} in milliseconds, nulls where it has none; null where only the server knows
 * it, as of every leaderboard but `default`. `standings`: what is held of the board; `at`: the server's time.
 */
export function boundsOf(board, standings, at) {
  if (standings?.window) {
    const [starts, ends] = [standings.window.starts, standings.window.ends].map((moment) => (moment ? Date.parse(moment) : null));
    return { starts, ends };
  }
  const { slug, kind, which, first } = parse(board);
  if (kind === 'all_time') return { starts: null, ends: null };
  if (slug !== 'default' || kind !== 'week') return null;
  const running = which === 'previous' ? weekAt(weekAt(at) - 1) : weekAt(at);
  const starts = first ?? weekStart(standings?.board) ?? running;
  return { starts, ends: weekEnd(starts) };
}

/** Whether the window of a board has ended by `at`, the server's time. */
export function hasEnded(board, standings, at) {
  const { which } = parse(board);
  const ends = boundsOf(board, standings, at)?.ends ?? null;
  return which === 'previous' || (which === null && ends !== null && ends <= at);
}

/** The days of a window, beside its name: "20 – 26 July", "Monday"; '' where the name says it all. `window`: {starts, ends} in
 * milliseconds where that is known; `zone`: in which its days are. */
export function windowDays(board, window, zone, now) {
  const { kind, first } = parse(board);
  if (first !== null && kind === 'week') return daysBetween(first, first + 6 * DAY_MS, now);
  if (first !== null && kind === 'day') return weekdayName(first);
  return kind === 'season' && window?.starts && window.ends ? daysBetween(window.starts, window.ends - 1, now, zone) : '';
}
