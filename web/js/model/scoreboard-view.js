// Owns what the scoreboard page shows, as one value, and the one function that makes the next one of it: `next(view, event)`.
// Never touches the page, a clock or a socket, and never changes a view. Every other function here answers what a view says.
// Assumes that every event carries `at` (the server's time) and `now` (the page's), both in milliseconds since 1970.
//
// A view: board and me, as the address has them · leaderboards, as the server lists them, null until it has · standings, what the
// client holds of that board, and their ranks · trouble and code, why the server refused it · between, the season that ended
// where the next one has not begun · rank and followedName, of the one who is followed · signedIn · openedAt, when the
// visitor asked for this board · leader, whom the page last showed in front · framedClosed, whether the frame shows the board
// as a closed week · ended, what the clock says after a rollover, and until when · result, the player and the words of the
// result line · at, the server's time at the last event.
import { ranks, RIGHTS } from './board.js';
import { describe } from './connection-status.js';
import { apart, dayIn, distance, remaining, scoreWords } from './format.js';
import { DEFAULT, nextSeason, tabsOf, titleOf } from './leaderboards.js';
import { found } from './player-match.js';
import { boundsOf, hasEnded, inWindow, parse, windowName, within } from './windows.js';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const FINAL_MS = 60_000; // how long "is final" stays
const NOTHING = Object.freeze({ player: null, words: '' });

// ---- how a view comes about

/** The first view of a page whose address says {board, me}. `isBare`: the address has no query, so whoever is signed in is followed. */
export function open({ board, me }, { signedIn, isBare, openedAt, at }) {
  const user = me === null && signedIn && isBare ? signedIn.user_id : me;
  return framed({
    leaderboards: null, board, me: user, standings: null, ranks: [], trouble: '', code: null, between: null, rank: null,
    followedName: ownName(signedIn, user), signedIn, openedAt, leader: null, framedClosed: false, ended: null, result: NOTHING, at,
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
  /** The server listed its leaderboards. */
  leaderboards: (view, { leaderboards }) => ({ ...view, leaderboards }),
  /** The server said how one of them is by now. */
  leaderboard: (view, { leaderboard }) =>
    ({ ...view, leaderboards: (view.leaderboards ?? []).map((known) => (known.slug === leaderboard.slug ? leaderboard : known)) }),
  /** The client tells the standings after `message`, null where it has none. */
  board: (view, { standings, message, now }) => {
    const barred = isBarred(message);
    const rolled = message.type === 'rollover' ? { ...view, rank: null, ended: ending(message, view.at) } : view;
    const before = barred ? blank(rolled, now) : rolled;
    const between = message.type === 'rollover' ? (message.to === null ? message.from : null) : standings ? null : before.between;
    return { ...before, ...held(before, barred ? null : standings), trouble: troubleIn(message), code: message.code ?? null, between };
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
    return { ...view, result: { player, words: found({ ...player, rank: view.ranks[index] }, true, ruleOf(view)) } };
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
  ({ ...view, standings: null, ranks: [], trouble: '', code: null, between: null, rank: null, leader: null, result: NOTHING, openedAt: now });

function held(view, standings) {
  if (standings === view.standings) return {};
  return { standings, ranks: standings ? ranks(standings.entries, standings.leaderboard?.ranks) : [] };
}

function ending({ from, to }, at) {
  const isFinal = from === null ? '' : `${windowName(from)} is final. `;
  return { until: at + FINAL_MS, words: `${isFinal}${to === null ? 'The next season has not begun.' : `${windowName(to)} has started.`}` };
}

/** Whether the board may not be seen, or no longer: it is private. */
export const isBarred = ({ type, code }) => type === 'unsubscribed' || (type === 'error' && RIGHTS.has(code));

/** Whether the board that is asked for may not be seen. */
export const isRefused = (view) => view.standings === null && view.trouble !== '' && (view.code === null || RIGHTS.has(view.code));

function troubleIn(message) {
  if (isBarred(message) && message.code !== 'forbidden') return 'This board is private. Sign in to see it.';
  return message.type === 'error' ? message.message || message.code : '';
}

// ---- what a view says

/** The leaderboard of the board that is shown, as the server lists it; null where nothing is known of it. */
export function listedOf({ board, leaderboards }) {
  const { slug } = parse(board);
  return leaderboards?.find((one) => one.slug === slug) ?? (slug === 'default' ? DEFAULT : null);
}

/** How scores of the shown board are ordered and written: undefined where that is `default`'s, or not known yet. */
export function ruleOf(view) {
  if (view.standings?.leaderboard) return view.standings.leaderboard;
  return parse(view.board).slug === 'default' ? undefined : listedOf(view) ?? undefined;
}

/** The window that is shown: {starts, ends} in milliseconds, nulls where it has none; null where only the server knows it. */
export const windowOf = ({ board, standings, at }) => boundsOf(board, standings, at);

/** Whether the window has ended. */
export const isClosed = ({ board, standings, at }) => hasEnded(board, standings, at);

/** Whether a window began or ended without the frame: the device's clock was wrong, or the server said only now when it ends. */
export const isMisframed = (view) => isClosed(view) !== view.framedClosed;

/** The id of the board that is shown, as far as it is known: that for which an alias stands. */
export function shownId(view) {
  const { slug, kind, which } = parse(view.board);
  if (which === null) return view.board;
  if (view.standings) return view.standings.board;
  if (slug !== 'default' || kind !== 'week') return view.board;
  return `week_of_${new Date(windowOf(view).starts).toISOString().slice(0, 10).replaceAll('-', '_')}`;
}

/** Where `user` stands among the entries, -1 where they do not. */
export const indexOf = ({ standings }, user) => standings?.entries.findIndex((entry) => entry.user_id === user) ?? -1;

/** What stands around the rows: the leaderboards to choose from, the tabs and which one is chosen, whether the clock, the choice
 * of closed windows and the way in are there, heading and title. */
export function frameOf(view) {
  const { slug, kind, which } = parse(view.board);
  const listed = listedOf(view);
  const heading = titleOf({ slug, title: view.standings?.leaderboard?.title || listed?.title });
  const tab = which === 'current' ? `tab-${kind}` : kind === 'all_time' ? 'tab-all' : 'tab-earlier';
  return {
    leaderboards: (view.leaderboards ?? []).length > 1 ? view.leaderboards.map((one) => ({ slug: one.slug, title: titleOf(one) })) : [],
    slug,
    tabs: listed ? tabsOf(listed) : [],
    tab,
    hasClock: which === 'current',
    hasWeeks: tab === 'tab-earlier',
    hasSignIn: !view.signedIn && view.me === null,
    heading,
    title: `${windowName(view.board)} · ${heading}`,
  };
}

/** The clock on the wall: {label, isLastHour, isOver, left: {d, h, m, s}}. At zero the window is closing; only the server ends it. */
export function countdownOf(view) {
  const ends = windowOf(view)?.ends ?? null;
  const left = (ends ?? view.at) - view.at;
  const name = windowName(shownId(view));
  const running = ends === null ? '' : left > 0 ? `${name} ends in` : `${name} is closing`;
  return {
    label: view.ended && view.at < view.ended.until ? view.ended.words : running,
    isLastHour: left > 0 && left <= HOUR_MS,
    isOver: left <= 0,
    left: remaining(left),
  };
}

/** Who won what is shown, in a sentence; '' where it still runs, or nobody did. */
export function wonWords(view) {
  const { entries = [] } = view.standings ?? {};
  if (!isClosed(view) || !entries.length) return '';
  const winners = entries.filter((entry, at) => view.ranks[at] === 1).map(({ username }) => username);
  const who = winners.length > 2 ? `${winners.slice(0, 2).join(', ')} and ${winners.length - 2} more` : winners.join(' and ');
  return `${windowName(shownId(view))}: won by ${who} with ${scoreWords(ruleOf(view), entries[0].score)}`;
}

/** {title, text} in the place of rows, null where there are some, or nothing is known yet. */
export function emptyOf(view) {
  const { standings, trouble, between } = view;
  const { kind } = parse(view.board);
  const making = makingWords(view);
  if (standings?.entries.length) return null;
  if (making && (standings || trouble)) return { title: 'These standings are being made', text: making };
  if (!standings) {
    if (between !== null) return { title: `${windowName(between)} is over`, text: seasonWords(view) };
    if (kind === 'season' && view.code === 'unknown_board') return { title: 'No season is running', text: seasonWords(view) };
    return trouble ? { title: 'There is nothing to show here', text: trouble } : null;
  }
  if (isClosed(view)) return { title: `Nobody scored ${within(kind)}`, text: '' };
  const title = kind === 'all_time' ? 'No scores yet' : startedWords(view);
  return { title, text: 'The first score takes rank 1.' };
}

function startedWords(view) {
  const id = shownId(view);
  const { starts, ends } = windowOf(view) ?? {};
  const isNew = view.at - starts < Math.min(DAY_MS, (ends - starts) / 7);
  return isNew ? `${windowName(id)} has just started` : `No scores ${inWindow(id)} yet`;
}

function seasonWords(view) {
  const listed = listedOf(view) ?? DEFAULT;
  const next = nextSeason(listed, view.at);
  return next ? `${windowName(`season_${next.id}`)} begins on ${dayIn(listed.zone, next.starts)}.` : 'The next season has not begun.';
}

/** How far new standings are that are being made; '' where none are. */
function makingWords(view) {
  const listed = listedOf(view);
  return listed?.isBuilding ? `Every score on record is being counted: ${Math.floor(100 * listed.progress)} %.` : '';
}

/** What the page says about the connection: {lamp, isOn, note, isOld}, for a client as `describe` takes it. */
export function lineOf(view, client, now) {
  const refused = view.trouble && (isRefused(view) ? 'Private' : 'Nothing to show');
  const about = { openedAt: view.openedAt, hasBoard: view.standings !== null || view.trouble !== '', isFinal: isClosed(view), refused };
  const said = describe(client, about, now);
  const making = view.standings?.entries.length ? makingWords(view) : '';
  const note = said.note || (making && `The rules have changed. Until the new standings are made these are the old ones. ${making}`);
  return { lamp: said.lamp, isOn: said.on, note, isOld: said.old };
}

/** The followed player's own bar: {rank, username, score, far}, null where nobody is followed or nothing is known. */
export function followedOf(view) {
  if (view.me === null || !view.standings) return null;
  const rule = ruleOf(view);
  const closedWords = isClosed(view) ? `Your final rank ${inWindow(shownId(view))}` : '';
  const index = indexOf(view, view.me);
  if (index >= 0) {
    const { username, score } = view.standings.entries[index];
    return { rank: view.ranks[index], username, score, far: closedWords || distance(view.standings.entries, view.ranks, index, rule) };
  }
  const username = view.followedName ?? `Player ${view.me}`;
  const { rank, score, to_next: toNext } = view.rank ?? {};
  if (rank === null || rank === undefined) {
    return { rank: null, username, score: null, far: closedWords ? `No score ${within(parse(view.board).kind)}` : 'No score on this board yet' };
  }
  return { rank, username, score, far: closedWords || (toNext ? `${apart(rule, toNext)} to the next rank` : 'Outside the top 100') };
}

/** The result line: {words, canFollow, action}. */
export function resultOf({ result: { player, words }, me }) {
  return { words, canFollow: Boolean(player), action: player?.user_id === me ? 'Stop following' : 'Follow' };
}

// ---- what is said aloud; '' where there is nothing to say

export const rankWords = (view) => (view.rank?.rank ? `You are rank ${view.rank.rank} with ${scoreWords(ruleOf(view), view.rank.score)}` : '');

/** Somebody else leads than when the page last showed the standings. */
export function leaderWords(view) {
  const { standings, leader } = view;
  const first = standings?.entries[0];
  return first && leader !== null && leader !== first.user_id ? `${first.username} leads with ${scoreWords(ruleOf(view), first.score)}` : '';
}

/** The lamp changed from `before` to `lamp`. */
export function lampWords({ standings }, before, lamp) {
  if (!standings || before === 'Connecting') return '';
  return lamp === 'Live' || lamp === 'Final' ? 'Connected' : lamp;
}
