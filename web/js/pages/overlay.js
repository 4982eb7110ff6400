// Owns the stream overlay: a board over any picture, for hours, with nobody there to reload it.
// Never shows an error on stream, never empties what it shows because the line is down.
// Assumes OBS's browser (Chromium 103 and later) or any newer one.
import { Repaint } from '../view/repaint.js';
import { ranks } from '../model/board.js';
import { Client } from '../client.js';
import { now } from '../model/clock.js';
import { getJson, server } from '../server.js';
import { readOptions } from '../model/overlay-options.js';
import { NamedPlayer } from '../view/named-player.js';
import { Rows } from '../view/rows.js';
import { write } from '../view/text.js';
import { remaining } from '../model/format.js';
import { boardName } from '../model/leaderboards.js';
import { boundsOf } from '../model/windows.js';

const PAUSED_MS = 20_000;

const options = readOptions(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get('token') ?? undefined; // a fragment is sent to nobody
const $ = (id) => document.getElementById(id);
const pad = (value) => String(value).padStart(2, '0');

Object.assign(document.documentElement.dataset, { theme: options.theme, shape: options.shape });
document.documentElement.style.fontSize = `${16 * options.scale}px`;

const client = options.sample ? new (await import('./sample.js')).Sample() : new Client(new URL('ws', server), { token });
const rows = new Rows($('list'), { axis: options.shape === 'strip' ? 'x' : 'y' });
const reduced = matchMedia('(prefers-reduced-motion: reduce)');

let board = null;
let shown = null; // id of the board on screen
let rank = null; // of the highlighted user, where it stands outside the rows
let name = null;
let user = null; // who is highlighted
const sought = typeof options.user === 'string' ? new NamedPlayer(options.user) : null;
let ended = false; // the server no longer sends this board: its token is over
let downSince = null;

/** The first rows of the board; the last one gives way to the highlighted user who stands further down. */
function chosen({ entries, ranks: all }) {
  const top = entries.slice(0, options.top);
  const ranked = all.slice(0, options.top);
  if (user === null || top.some(({ user_id }) => user_id === user)) return [top, ranked];
  const at = entries.findIndex(({ user_id }) => user_id === user);
  const far = at >= 0 ? { ...entries[at], rank: all[at] } : outside();
  if (far) {
    const last = Math.min(top.length, options.top - 1);
    top[last] = { user_id: far.user_id, username: far.username, score: far.score };
    ranked[last] = far.rank;
  }
  return [top, ranked];
}

const outside = () => (rank?.rank && rank.board === board.board && name ? { ...rank, username: name } : null);

const repaint = new Repaint((still) => {
  if (!board) return null;
  if (shown !== board.board) rows.clear();
  shown = board.board;
  const { leaderboard } = board;
  const field = { entries: board.entries, ranks: ranks(board.entries, leaderboard?.ranks) };
  const [entries, ranked] = chosen(field);
  const moving = options.motion && !still && !reduced.matches;
  const moved = rows.paint(entries, ranked, { now: now(), me: user, isYou: false, moving, marking: !still, field, leaderboard });
  $('overlay').hidden = false;
  showHeader();
  return moved;
});

function showHeader() {
  const title = options.title ?? boardName(options.board === 'current_week' ? board.board : options.board, board.leaderboard);
  write($('title'), title);
  $('header').hidden = title === '';
  const words = clock();
  write($('clock'), words);
}

function clock() {
  const down = client.state !== 'live' || client.stale || ended;
  downSince = down ? downSince ?? now() : null;
  if (options.status && down && now() - downSince >= PAUSED_MS) return 'Paused';
  const left = (boundsOf(options.board, board, client.now())?.ends ?? 0) - client.now();
  if (!options.clock || left <= 0) return '';
  const { d, h, m, s } = remaining(left);
  return `${d ? `${d} d ` : ''}${pad(h)}:${pad(m)}:${pad(s)}`;
}

async function learnName() {
  const path = `boards/${encodeURIComponent(options.board)}/users/${user}?neighbours=0`;
  name = (await getJson(path, server, token).catch(() => null))?.username ?? name;
  repaint.ask();
}

function follow(one) {
  user = one;
  client.watch(options.board, user, (message) => {
    const isNew = rank === null;
    rank = message;
    if (isNew) learnName();
    repaint.ask();
  });
}

async function seek() {
  const found = await sought.find(options.board, board.entries, server, token);
  if (found === null) tell({ message: `nobody among the first 1,000 is called ${options.user}` });
  else if (user === null) follow(found);
}

const told = new Set();

/** Says in the console, where a stream does not see it, why there is nothing to show. */
function tell({ code, message }) {
  const words = `Overlay of ${options.board}: ${message || code || 'it may not be seen any more'}${token ? '' : ' (a private board needs #token= and a token behind the address)'}`;
  if (told.has(words)) return;
  told.add(words);
  console.warn(words);
}

function tick() {
  if (board) { showHeader(); rows.settle(now()); }
  setTimeout(tick, 1000 - (client.now() % 1000));
}

client.subscribe(options.board, (next, message) => {
  ended = message.type === 'unsubscribed' || message.type === 'error';
  if (ended) tell(message);
  if (!next) return; // a new window, or none yet: what stands stays until its first snapshot is here
  const first = next.board !== board?.board;
  board = next;
  if (first) repaint.now();
  else repaint.ask();
  if (sought && user === null) seek();
}, { describe: true });
client.on('error', (message) => { if (!message.board) tell(message); });
if (typeof options.user === 'number') follow(options.user);
addEventListener('obsSourceVisibleChanged', ({ detail }) => repaint.hide(detail?.visible === false));
addEventListener('obsSourceActiveChanged', ({ detail }) => detail?.active && repaint.ask(true));
document.addEventListener('visibilitychange', () => repaint.hide(document.hidden));
tick();
