// Owns <live-leaderboard board top user theme heading server>: a live board on anybody's page, by one script tag.
// Never styles or scripts anything outside itself. Elements that show the same server share one connection.
// Assumes Chromium 103 or any later browser: no container queries, no nesting.
import { Repaint } from './view/repaint.js';
import { ranks } from './model/board.js';
import { Client } from './client.js';
import { now } from './model/clock.js';
import { base, getJson } from './server.js';
import { describe } from './model/connection-status.js';
import { css } from './view/live-leaderboard-style.js';
import { Rows } from './view/rows.js';
import { boardName } from './model/leaderboards.js';
import { parse, windowName } from './model/windows.js';

const NARROW = 520;
const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const clients = new Map(); // server address -> {client, users}
const elements = new Set();
let sheet;

function borrow(address) {
  const held = clients.get(address) ?? { client: new Client(new URL('ws', address)), users: 0 };
  clients.set(address, held);
  held.users += 1;
  return held.client;
}

function giveBack(address) {
  const held = clients.get(address);
  if (!held || (held.users -= 1)) return;
  clients.delete(address);
  held.client.close();
}

const part = (tag, name) => {
  const node = document.createElement(tag);
  node.className = name;
  node.setAttribute('part', name);
  return node;
};

/** Why there is nothing to show. */
const refusal = (board, { code, message }) =>
  (code === 'unknown_board' && parse(board).kind === 'season' ? 'No season is running.' : message || code);

export class LiveLeaderboard extends HTMLElement {
  static observedAttributes = ['board', 'top', 'user', 'theme', 'heading', 'server'];

  #root; #parts; #rows; #pinned; #repaint; #watchers;
  #client = null; #address = null; #leave = []; #due = false;
  #board = null; #rank = null; #name = null; #trouble = ''; #openedAt = 0;

  constructor() {
    super();
    if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(css);
    this.#root = this.attachShadow({ mode: 'open' });
    this.#root.adoptedStyleSheets = [sheet];
    this.#build();
    this.#repaint = new Repaint((still) => this.#paint(still));
  }

  get board() { return this.getAttribute('board') || 'current_week'; }
  get top() { return Math.min(100, Math.max(1, Math.trunc(Number(this.getAttribute('top'))) || 10)); }
  get user() { const user = Number(this.getAttribute('user')); return Number.isSafeInteger(user) && user > 0 ? user : null; }
  get server() { return new URL(this.getAttribute('server') || base(import.meta.url), document.baseURI).href; }

  connectedCallback() {
    elements.add(this);
    this.#watchers = [
      new ResizeObserver(([{ contentRect }]) => this.#parts.section.classList.toggle('narrow', contentRect.width <= NARROW)),
      new IntersectionObserver(([{ isIntersecting }]) => this.#see(isIntersecting)),
    ];
    for (const watcher of this.#watchers) watcher.observe(this);
    this.#later();
  }

  disconnectedCallback() {
    elements.delete(this);
    for (const watcher of this.#watchers) watcher.disconnect();
    this.#stop();
  }

  /** Several attributes set in a row are one change. */
  attributeChangedCallback() { this.#later(); }

  #later() {
    if (this.#due || !this.isConnected) return;
    this.#due = true;
    queueMicrotask(() => { this.#due = false; if (this.isConnected) this.#start(); });
  }

  #start() {
    this.#stop();
    this.#board = this.#rank = this.#name = null;
    this.#openedAt = now();
    this.#rows.clear();
    this.#pinned.clear();
    this.#address = this.server;
    this.#client = borrow(this.#address);
    this.#leave.push(this.#client.on('state', () => this.#repaint.ask()));
    this.#leave.push(this.#client.subscribe(this.board, (board, message) => {
      if (board && this.#board && board.board !== this.#board.board) { this.#rows.clear(); this.#pinned.clear(); this.#rank = null; }
      const first = board && board.board !== this.#board?.board;
      this.#board = board ?? (message.type === 'error' ? null : this.#board);
      this.#trouble = message.type === 'error' ? refusal(this.board, message) : '';
      if (first) this.#repaint.now();
      else this.#repaint.ask();
    }, { describe: true }));
    if (this.user !== null) this.#leave.push(this.#client.watch(this.board, this.user, (rank) => this.#onRank(rank)));
    this.#repaint.ask();
  }

  #stop() {
    for (const stop of this.#leave.splice(0)) stop();
    if (this.#client) giveBack(this.#address);
    this.#client = null;
  }

  #onRank(rank) {
    const isNew = this.#rank === null;
    this.#rank = rank;
    if (isNew && this.#name === null) {
      getJson(`boards/${encodeURIComponent(this.board)}/users/${rank.user_id}?neighbours=0`, this.#address)
        .then(({ username }) => { this.#name = username; this.#repaint.ask(); }, () => {});
    }
    this.#repaint.ask();
  }

  #see(inSight) {
    this.inSight = inSight;
    this.#repaint.hide(!inSight || document.hidden);
  }

  /** Called once a second and when the page is hidden or shown. */
  tick(visibility) {
    if (visibility) return this.#see(this.inSight ?? true);
    this.#rows.settle(now());
    if (this.#client) this.#showLine();
  }

  #build() {
    const section = part('section', 'board');
    const header = part('header', 'header');
    const title = part('h2', 'title');
    const status = part('p', 'status');
    const list = part('ol', 'rows');
    const pinned = part('ol', 'pinned');
    const empty = part('p', 'empty');
    title.id = 'title';
    list.translate = pinned.translate = false; // a browser's translation takes the text nodes that rows write into
    list.setAttribute('role', 'list');
    list.setAttribute('aria-labelledby', 'title');
    pinned.setAttribute('role', 'list');
    pinned.setAttribute('aria-label', 'The player you follow');
    pinned.hidden = true;
    header.append(title, status);
    section.append(header, list, empty, pinned);
    this.#root.append(section);
    this.#parts = { section, header, title, status, list, pinned, empty };
    this.#rows = new Rows(list, { limit: () => this.top });
    this.#pinned = new Rows(pinned);
  }

  #paint(still) {
    if (!this.#client) return null;
    const leaderboard = this.#board?.leaderboard;
    const heading = this.getAttribute('heading') ?? (this.#board ? boardName(this.board, leaderboard) : windowName(this.board));
    if (this.#parts.title.textContent !== heading) this.#parts.title.textContent = heading;
    this.#parts.header.hidden = heading === '';
    this.#showLine();
    const entries = this.#board?.entries ?? [];
    this.#parts.empty.hidden = entries.length > 0 || (!this.#board && !this.#trouble);
    this.#parts.empty.textContent = this.#trouble || 'The first score takes rank 1.';
    if (!this.#board) return null;
    const moving = !still && !reduced.matches;
    const look = { now: now(), me: this.user, moving, marking: !still, leaderboard };
    const ranked = ranks(entries, leaderboard?.ranks);
    const moved = this.#rows.paint(entries, ranked, look);
    this.#pin(entries, ranked, look);
    return moved;
  }

  /** The followed player's own row, below the others, where it is not among them. */
  #pin(entries, ranked, look) {
    const at = entries.findIndex(({ user_id }) => user_id === this.user);
    const outside = at < 0 && this.#rank?.rank ? { ...this.#rank, username: this.#name ?? `Player ${this.user}` } : null;
    const player = at >= this.top ? { ...entries[at], rank: ranked[at] } : outside;
    this.#parts.pinned.hidden = !player;
    if (player) this.#pinned.paint([player], [player.rank], look);
  }

  #showLine() {
    const said = describe(this.#client, { openedAt: this.#openedAt, hasBoard: this.#board !== null }, now());
    if (this.#parts.status.textContent !== said.lamp) this.#parts.status.textContent = said.lamp;
    this.#parts.status.title = said.note;
    this.#parts.status.classList.toggle('on', said.on);
    this.#parts.section.classList.toggle('old', said.old);
  }
}

setInterval(() => { for (const element of elements) element.tick(false); }, 1000);
document.addEventListener('visibilitychange', () => { for (const element of elements) element.tick(true); });
if (!customElements.get('live-leaderboard')) customElements.define('live-leaderboard', LiveLeaderboard);
