// Owns every number, date and sentence that several pages show, in the viewer's locale. Never touches the DOM.
// Assumes board ids as the server names them, and weeks that begin on Monday 00:00 UTC.

const DAY = 86_400_000;
const WEEK = 7 * DAY;
const MONDAY = 4 * DAY; // 5 January 1970

const plain = new Intl.NumberFormat();
const signs = new Intl.NumberFormat(undefined, { signDisplay: 'exceptZero' });
const seconds = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const minutes = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const days = (year) => new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year, timeZone: 'UTC' });

export const amount = (value) => plain.format(value);
export const gain = (value) => signs.format(value);
export const clockTime = (ms) => seconds.format(ms);
export const shortTime = (ms) => minutes.format(ms);
export const points = (value) => `${amount(value)} ${Math.abs(value) === 1 ? 'point' : 'points'}`;
export const players = (value) => `${amount(value)} ${value === 1 ? 'player' : 'players'}`;

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

/** "20 – 26 July", with the year where it is not the year of `now`. */
export function weekDays(start, now) {
  const sameYear = new Date(start).getUTCFullYear() === new Date(now).getUTCFullYear();
  return days(sameYear ? undefined : 'numeric').formatRange(start, start + 6 * DAY);
}

export function boardName(board) {
  const start = weekStart(board);
  if (start !== null) return weekName(start);
  return board === 'all_time' ? 'All time' : board === 'current_week' ? 'This week' : board;
}

/** What is left of `ms`, in whole days, hours, minutes and seconds; never negative. */
export function remaining(ms) {
  const left = Math.max(0, Math.ceil(ms / 1000));
  return { d: Math.floor(left / 86_400), h: Math.floor(left / 3600) % 24, m: Math.floor(left / 60) % 60, s: left % 60 };
}

/** Where a player on the shown board stands: the words under the name in the bar of the one who is followed. */
export function distance(entries, ranks, index) {
  const score = entries[index].score;
  if (ranks[index] === 1) {
    const next = entries.find((entry) => entry.score < score);
    const shared = entries.length > 1 && entries[index === 0 ? 1 : 0].score === score;
    if (shared) return 'You share the lead';
    return next ? `You lead by ${points(score - next.score)}` : 'You lead';
  }
  const above = ranks.lastIndexOf(ranks[ranks.indexOf(ranks[index]) - 1]);
  return `${points(entries[above].score - score)} to rank ${amount(ranks[above])}`;
}
