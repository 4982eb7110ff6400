// Owns what the scoreboard page shows, as one value, and the one function that makes the next one of it: `next(view, event)`.
// Never touches the page, a clock or a socket, and never changes a view. Every other function here answers what a view says.
// Assumes that every event carries `at` (the server's time) and `now` (the page's), both in milliseconds since 1970.
//
// A view: board and me, as the address has them · standings, what the client holds of that board, and their ranks ·
// trouble, why the server refused it · rank and followedName, of the one who is followed · signedIn · openedAt, when the
// visitor asked for this board · leader, whom the page last showed in front · framedClosed, whether the frame shows the board
// as a closed week · ended, what the clock says after a rollover, and until when · result, the player and the words of the
// result line · at, the server's time at the last event.
import { ranks, RIGHTS } from './board.js';
import { describe } from './connection-status.js';
import { boardName, distance, points, remaining, weekAt, weekEnd, weekName, weekStart } from './format.js';
import { found } from './player-match.js';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const FINAL_MS = 60_000; // how long "is final" stays
const NOTHING = Object.freeze({ player: null, words: '' });

// ---- how a view comes about

/** The first view of a page whose address says {board, me}. `isBare`: the address has no query, so whoever is signed in is followed. */
export function open({ board, me }, { signedIn, isBare, openedAt, at }) {
  const user = me === null && signedIn && isBare ? signedIn.user_id : me;
  return framed({
    board, me: user, standings: null, ranks: [], trouble: '', rank: null, followedName: ownName(signedIn, user), signedIn,
    openedAt, leader: null, framedClosed: false, ended: null, result: NOTHING, at,
  });
}

/** The name of `user` where that is whoever is signed in; null where only the server knows it. */
const ownName = (signedIn, user) => (signedIn && user === signedIn.user_id ? signedIn.username ?? null : null);

/** The view after `event`. Raises TypeError for a type of event that it does not know. */
export function next(view, event) {
  if (!Object.hasOwn(AFTER, event.type)) throw new TypeError(`There is no event ${event.type}.`);
  return AFTER[event.type]({ ...view, at: event.at }, event);
}

const AFTER = {
  /** Time has passed. */
  clock: (view) => view,
  /** The user, or the address, asks for {board, me}. */
  shown: (view, { board, me, now }) => {
    const followedName = me === view.me ? view.followedName : ownName(view.signedIn, me);
    return framed({ ...(board === view.board ? view : blank(view, now)), board, me, followedName, rank: null });
  },
  /** The client tells the standings after `message`, null where it has none. */
  board: (view, { standings, message, now }) => {
    const barred = isBarred(message);
    const rolled = message.type === 'rollover' ? { ...view, rank: null, ended: ending(message, view.at) } : view;
    const before = barred ? blank(rolled, now) : rolled;
    return { ...before, ...held(before, barred ? null : standings), trouble: troubleIn(message) };
  },
  /** The client tells the rank of the one who is followed. */
  rank: (view, { message }) => ({ ...view, rank: message }),
  /** The server answered who `user` is, and how they stand on `board` (`here`, null where they do not). */
  person: (view, { user, board, here, username }) => {
    if (view.me !== user) return view;
    return { ...view, followedName: username, rank: here && view.board === board && isClosed(view) ? here : view.rank };
  },
  /** The result line says `words`, about `player` where there is one. */
  result: (view, { player = null, words = '' }) => ({ ...view, result: { player, words } }),
  /** The user chose somebody on the board. */
  chosen: (view, { user }) => {
    const index = indexOf(view, user);
    if (index < 0) return view;
    const player = view.standings.entries[index];
    return { ...view, result: { player, words: found({ ...player, rank: view.ranks[index] }, true) } };
  },
  /** The user follows the player of the result line, or stops doing so. */
  follow: (view) => {
    const { player } = view.result;
    if (!player) return view;
    const stop = player.user_id === view.me;
    const words = stop ? `You no longer follow ${player.username ?? 'anyone'}.` : `You follow ${player.username}.`;
    const [me, followedName] = stop ? [null, null] : [player.user_id, player.username];
    return framed({ ...view, me, followedName, rank: null, result: { player: null, words } });
  },
  /** The server ended the session. */
  left: (view) => framed({ ...view, signedIn: null }),
  /** The page has shown the standings. */
  painted: (view) => ({ ...view, leader: view.standings?.entries[0]?.user_id ?? view.leader }),
};

const framed = (view) => ({ ...view, framedClosed: isClosed(view) });

const blank = (view, now) =>
  ({ ...view, standings: null, ranks: [], trouble: '', rank: null, leader: null, result: NOTHING, openedAt: now });

function held(view, standings) {
  if (standings === view.standings) return {};
  return { standings, ranks: standings ? ranks(standings.entries) : [] };
}

function ending({ from, to }, at) {
  return { until: at + FINAL_MS, words: `${weekName(weekStart(from))} is final. ${weekName(weekStart(to))} has started.` };
}

/** Whether the board may not be seen, or no longer: it is private. */
export const isBarred = ({ type, code }) => type === 'unsubscribed' || (type === 'error' && RIGHTS.has(code));

function troubleIn(message) {
  if (isBarred(message) && message.code !== 'forbidden') return 'This board is private. Sign in to see it.';
  return message.type === 'error' ? message.message || message.code : '';
}

// ---- what a view says

/** Whether the board is a week that has ended. */
export const isClosed = ({ board, at }) => weekStart(board) !== null && weekStart(board) < weekAt(at);

/** Whether a week began or ended without the frame: the device's clock was wrong. */
export const isMisframed = (view) => isClosed(view) !== view.framedClosed;

/** The start of the week that is shown, in milliseconds; of the running one where the board is of no week. */
export const shownWeek = ({ standings, at }) => weekStart(standings?.board) ?? weekAt(at);

/** Where `user` stands among the entries, -1 where they do not. */
export const indexOf = ({ standings }, user) => standings?.entries.findIndex((entry) => entry.user_id === user) ?? -1;

/** What stands around the rows: the chosen tab, whether the clock, the choice of weeks and the way in are there, the title. */
export function frameOf(view) {
  const tab = weekStart(view.board) !== null ? 'earlier' : view.board === 'all_time' ? 'all' : 'week';
  return {
    tab,
    hasClock: view.board === 'current_week',
    hasWeeks: tab === 'earlier',
    hasSignIn: !view.signedIn && view.me === null,
    title: `${boardName(view.board)} · Leaderboard`,
  };
}

/** The clock on the wall: {label, isLastHour, isOver, left: {d, h, m, s}}. At zero the week is closing; only the server ends it. */
export function countdownOf(view) {
  const start = shownWeek(view);
  const left = weekEnd(start) - view.at;
  const running = left > 0 ? `${weekName(start)} ends in` : `${weekName(start)} is closing`;
  return {
    label: view.ended && view.at < view.ended.until ? view.ended.words : running,
    isLastHour: left > 0 && left <= HOUR_MS,
    isOver: left <= 0,
    left: remaining(left),
  };
}

/** {title, text} in the place of rows, null where there are some, or nothing is known yet. */
export function emptyOf(view) {
  const { standings, trouble } = view;
  if (!standings) return trouble ? { title: 'There is nothing to show here', text: trouble } : null;
  if (standings.entries.length) return null;
  if (isClosed(view)) return { title: 'Nobody scored in this week', text: '' };
  const title = weekStart(standings.board) === null ? 'No scores yet' : startedWords(view);
  return { title, text: 'The first score takes rank 1.' };
}

function startedWords(view) {
  const start = shownWeek(view);
  return view.at - start < DAY_MS ? `${weekName(start)} has just started` : `No scores in ${weekName(start).toLowerCase()} yet`;
}

/** What the page says about the connection: {lamp, isOn, note, isOld}, for a client as `describe` takes it. */
export function lineOf(view, client, now) {
  const said = describe(client, { openedAt: view.openedAt, hasBoard: view.standings !== null || view.trouble !== '' }, now);
  const isFinal = isClosed(view) && !view.trouble;
  return { lamp: isFinal && said.on ? 'Final' : said.lamp, isOn: said.on && !isFinal, note: said.note, isOld: said.old };
}

/** The followed player's own bar: {rank, username, score, far}, null where nobody is followed or nothing is known. */
export function followedOf(view) {
  if (view.me === null || !view.standings) return null;
  const closedWords = isClosed(view) ? `Your final rank in ${weekName(shownWeek(view)).toLowerCase()}` : '';
  const index = indexOf(view, view.me);
  if (index >= 0) {
    const { username, score } = view.standings.entries[index];
    return { rank: view.ranks[index], username, score, far: closedWords || distance(view.standings.entries, view.ranks, index) };
  }
  const username = view.followedName ?? `Player ${view.me}`;
  const { rank, score, to_next: toNext } = view.rank ?? {};
  if (rank === null || rank === undefined) {
    return { rank: null, username, score: null, far: closedWords ? 'No score in this week' : 'No score on this board yet' };
  }
  return { rank, username, score, far: closedWords || (toNext ? `${points(toNext)} to the next rank` : 'Outside the top 100') };
}

/** The result line: {words, canFollow, action}. */
export function resultOf({ result: { player, words }, me }) {
  return { words, canFollow: Boolean(player), action: player?.user_id === me ? 'Stop following' : 'Follow' };
}

// ---- what is said aloud; '' where there is nothing to say

export const rankWords = ({ rank }) => (rank?.rank ? `You are rank ${rank.rank} with ${points(rank.score)}` : '');

/** Somebody else leads than when the page last showed the standings. */
export function leaderWords({ standings, leader }) {
  const first = standings?.entries[0];
  return first && leader !== null && leader !== first.user_id ? `${first.username} leads with ${points(first.score)}` : '';
}

/** The lamp changed from `before` to `lamp`. */
export function lampWords({ standings }, before, lamp) {
  if (!standings || before === 'Connecting') return '';
  return lamp === 'Live' || lamp === 'Final' ? 'Connected' : lamp;
}
