// Owns what the pages know of the deployment's leaderboards, as the server lists them: titles, windows, what may be handed in.
// Pure. Assumes the answer of `GET /leaderboards`; a server of before has none, and then there is `default` alone.
import { boardIn, kindName, KINDS, parse, windowName } from './windows.js';

const USUAL = {
  title: '', of: null, operator: 'sum', order: 'descending', windows: ['all_time', 'week'], zone: 'UTC', ties: 'user_id', ranks: 'competition',
  format: { kind: 'integer' }, bounds: null, submit: 'players', visible: null, metadata: false, seasons: [],
};

/** The first leaderboard, whatever else there is. */
export const DEFAULT = Object.freeze({ slug: 'default', ...USUAL, isBuilding: false, progress: 1 });

/** One of the list: its definition with its slug, and whether new standings are being made for it, and how far they are. */
export function readLeaderboard({ slug, definition, state, progress }) {
  const said = Object.entries(definition ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return { ...USUAL, ...Object.fromEntries(said), slug, isBuilding: state === 'building', progress: progress ?? 1 };
}

/** The leaderboards of an answer, `default` alone where there is none. */
export function readList(answer) {
  const list = (answer?.leaderboards ?? []).filter(({ slug }) => typeof slug === 'string').map(readLeaderboard);
  return list.length ? list : [DEFAULT];
}

/** What it is called on a page. */
export const titleOf = ({ slug, title }) => (title && title !== slug ? title : slug === 'default' ? 'Leaderboard' : title || slug);

/** What a board is called where it stands alone: "Week 48", "Sprint · Today". `leaderboard`: as `subscribed` describes it. */
export function boardName(board, leaderboard) {
  const { slug } = parse(board);
  return slug === 'default' ? windowName(board) : `${titleOf({ slug, title: leaderboard?.title })} · ${windowName(board)}`;
}

/** Its tabs: {id, kind, board, words}; the last one, for what has ended, has no board. */
export function tabsOf({ slug, windows }) {
  const kinds = KINDS.filter((kind) => windows.includes(kind));
  const isShort = kinds.length > 2;
  const tabs = kinds.map((kind) => ({ id: `tab-${kind}`, kind, board: boardIn(slug, `current_${kind}`), words: kindName(kind, isShort) }));
  if (windows.includes('all_time')) tabs.push({ id: 'tab-all', kind: 'all_time', board: boardIn(slug, 'all_time'), words: kindName('all_time') });
  if (kinds.length) tabs.push({ id: 'tab-earlier', kind: null, board: null, words: 'Earlier' });
  return tabs;
}

/** The board to open of a leaderboard for somebody who looks at `board`: of the same kind, where there is one. */
export function boardLike(leaderboard, board) {
  const tabs = tabsOf(leaderboard);
  const { kind } = parse(board);
  return (tabs.find((tab) => kind !== null && tab.kind === kind) ?? tabs[0]).board;
}

/** The first season that has not begun at `at`: {id, starts} in milliseconds, or null. */
export function nextSeason({ seasons }, at) {
  const later = seasons.map(({ id, starts }) => ({ id, starts: Date.parse(starts) })).filter(({ starts }) => starts > at);
  return later.sort((a, b) => a.starts - b.starts)[0] ?? null;
}

/** Whether players hand in their own scores. */
export const isOpen = ({ submit, of }) => submit === 'players' && of === null;
