// Owns <live-leaderboard board top user theme heading server token>: a live board on anybody's page, by one script tag.
// Never styles or scripts anything outside itself. Elements that show the same server to the same visitor share a connection.
// Assumes Chromium 103 or any later browser: no container queries, no nesting. Where there is no page, as on a server that
// renders one, importing this defines nothing and touches nothing.
import { Repaint } from './view/repaint.js';
import { ranks, RIGHTS } from './model/board.js';
import { Client } from './client.js';
import { now } from './model/clock.js';
import { base, getJson } from './server.js';
import { describe } from './model/connection-status.js';
import { css } from './view/live-leaderboard-style.js';
import { NamedPlayer } from './view/named-player.js';
import { Rows } from './view/rows.js';
import { write } from './view/text.js';
import { boardName } from './model/leaderboards.js';
import { hasEnded, parse, windowName } from './model/windows.js';

const NARROW = 520;
const THEMES = ['light', 'dark', 'auto'];
const Base = globalThis.HTMLElement ?? class {};
const isReduced = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
const clients = new Map(); // server address -> (token, or what brings one -> {client, users})
const elements = new Set();
let sheet;

function borrow(address, token) {
  const here = clients.get(address) ?? new Map();
  const held = here.get(token) ?? { client: new Client(new URL('ws', address), { token }), users: 0 };
  clients.set(address, here.set(token, held));
  held.users += 1;
  return held.client;
}

function giveBack(address, token) {
  const held = clients.get(address)?.get(token);
  if (!held || (held.users -= 1)) return;
  clients.get(address).delete(token);
  held.client.close();
}

const part = (tag, name) => {
  const node = document.createElement(tag);
  node.className = name;
  node.setAttribute('part', name);
  return node;
};

const WHERE_A_TOKEN_GOES = 'This board is private: give the element a token, as the attribute token or by the property getToken.';

/** Why there is nothing to show: {words, lamp}. */
function refusal(board, { type, code, message }) {
  if (type === 'unsubscribed' || (RIGHTS.has(code) && code !== 'forbidden')) return { words: 'This board is private.', lamp: 'Private', hint: WHERE_A_TOKEN_GOES };
  if (code === 'forbidden') return { words: 'This board is private.', lamp: 'Private', hint: message };
  if (code === 'unknown_board' && parse(board).kind === 'season') return { words: 'No season is running.', lamp: 'Waiting' };
  return { words: message || code, lamp: 'Nothing to show' };
}

export class LiveLeaderboard extends Base {
  static observedAttributes = ['board', 'top', 'user', 'theme', 'heading', 'server', 'token'];

  #root; #parts; #rows; #pinned; #repaint; #watchers;
  #client = null; #address = null; #credential; #getToken = null; #leave = []; #due = false;
  #board = null; #user = null; #sought = null; #rank = null; #name = null; #trouble = null; #state = ''; #openedAt = 0; #told = new Set();

  constructor() {
    super();
    if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(css);
    this.#root = this.attachShadow({ mode: 'open' });
    this.#root.adoptedStyleSheets = [sheet];
    this.#build();
    this.#repaint = new Repaint((still) => this.#paint(still));
  }

  // Every attribute is a property too, so that frameworks may set either.

  get board() { return this.getAttribute('board') || 'current_week'; }
  set board(value) { this.#reflect('board', value); }

  get top() { return this.#within('top', 1, 100, 10); }
  set top(value) { this.#reflect('top', value); }

  /** A player's number, or their name as it stands on the board. */
  get user() {
    const text = (this.getAttribute('user') ?? '').trim();
    return text === '' ? null : /^[1-9]\d{0,15}$/.test(text) ? Number(text) : text;
  }
  set user(value) { this.#reflect('user', value); }

  get theme() { return this.#oneOf('theme', THEMES, 'auto'); }
  set theme(value) { this.#reflect('theme', value); }

  get heading() { return this.getAttribute('heading'); }
  set heading(value) { this.#reflect('heading', value); }

  get server() {
    const own = base(import.meta.url);
    try {
      const address = new URL(this.getAttribute('server') || own, document.baseURI);
      if (address.protocol.startsWith('http')) return address.href.replace(/[^/]$/, '$&/');
    } catch { /* told below */ }
    this.#warn('server', 'is no address of a leaderboard server: write server="https://scores.example/".');
    return own.href;
  }
  set server(value) { this.#reflect('server', value); }

  get token() { return this.getAttribute('token'); }
  set token(value) { this.#reflect('token', value); }

  /** Brings a token, as `() => text` or a promise of one: asked at each connect, and when the last one has ended. */
  get getToken() { return this.#getToken; }
  set getToken(value) {
    this.#getToken = typeof value === 'function' ? value : null;
    this.#later();
  }

  #reflect(name, value) {
    if (value === null || value === undefined || value === false) this.removeAttribute(name);
    else this.setAttribute(name, value);
  }

  #within(name, low, high, usual) {
    const text = this.getAttribute(name);
    if (text === null) return usual;
    const number = Number(text);
    if (text.trim() && Number.isInteger(number) && number >= low && number <= high) return number;
    this.#warn(name, `must be a whole number from ${low} to ${high}.`);
    return Math.min(high, Math.max(low, Math.trunc(number))) || usual;
  }

  #oneOf(name, allowed, usual) {
    const text = this.getAttribute(name) || usual;
    if (allowed.includes(text)) return text;
    this.#warn(name, `must be one of ${allowed.join(', ')}.`);
    return usual;
  }

  /** Tells the page's author once what is wrong. */
  #warn(name, words) {
    const said = `<live-leaderboard ${name}="${name === 'token' ? '…' : this.getAttribute(name) ?? ''}">: ${words}`;
    if (this.#told.has(said)) return;
    this.#told.add(said);
    console.warn(said);
  }

  /** Tells the page that holds the element. The events do not bubble: `change` of a field in a form is something else. */
  #emit(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

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
    this.#board = this.#user = this.#rank = this.#name = this.#trouble = null;
    this.#sought = null;
    this.#openedAt = now();
    this.#rows.clear();
    this.#pinned.clear();
    void this.theme; // a wrong one is told
    this.#address = this.server;
    this.#credential = this.#getToken ?? this.token ?? undefined;
    this.#client = borrow(this.#address, this.#credential);
    this.#leave.push(this.#client.on('state', () => this.#repaint.ask()));
    this.#leave.push(this.#client.on('error', ({ board, message }) => board || this.#warn('token', message)));
    this.#leave.push(this.#client.subscribe(this.board, (board, message) => this.#onBoard(board, message), { describe: true }));
    if (typeof this.user === 'number') this.#follow(this.user);
    this.#repaint.ask();
  }

  #stop() {
    for (const stop of this.#leave.splice(0)) stop();
    if (this.#client) giveBack(this.#address, this.#credential);
    this.#client = null;
  }

  #onBoard(board, message) {
    if (board && this.#board && board.board !== this.#board.board) { this.#rows.clear(); this.#pinned.clear(); this.#rank = null; }
    const first = board && board.board !== this.#board?.board;
    const isRefused = message.type === 'error' || message.type === 'unsubscribed';
    this.#board = isRefused ? null : board ?? this.#board;
    this.#trouble = isRefused ? refusal(this.board, message) : null;
    if (isRefused) { this.#rows.clear(); this.#pinned.clear(); }
    if (this.#trouble) this.#warn('board', this.#trouble.hint ?? this.#trouble.words);
    if (this.#board && typeof this.user === 'string' && this.#user === null) this.#seek(this.user);
    if (first) this.#repaint.now();
    else this.#repaint.ask();
    if (board && !isRefused) this.#emit('change', { board });
  }

  async #seek(name) {
    const client = this.#client;
    const sought = (this.#sought ??= new NamedPlayer(name));
    const found = await sought.find(this.board, this.#board?.entries ?? [], this.#address, await client.token());
    if (client !== this.#client || this.#user !== null) return;
    if (found === null) this.#warn('user', 'is nobody among the first 1,000 of this board. A player further down is found by number.');
    else this.#follow(found);
  }

  #follow(user) {
    this.#user = user;
    this.#leave.push(this.#client.watch(this.board, user, (rank) => this.#onRank(rank)));
    this.#repaint.ask();
  }

  async #onRank(rank) {
    const isNew = this.#rank === null;
    const client = this.#client;
    this.#rank = rank;
    this.#emit('rank', rank);
    this.#repaint.ask();
    if (!isNew || this.#name !== null) return;
    const path = `boards/${encodeURIComponent(this.board)}/users/${rank.user_id}?neighbours=0`;
    const player = await getJson(path, this.#address, await client.token()).catch(() => null);
    if (client !== this.#client || this.#user !== rank.user_id) return;
    this.#name = player?.username ?? null;
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
    const heading = this.heading ?? (this.#board ? boardName(this.board, leaderboard) : windowName(this.board));
    write(this.#parts.title, heading);
    this.#parts.header.hidden = heading === '';
    this.#showLine();
    const entries = this.#board?.entries ?? [];
    this.#parts.empty.hidden = entries.length > 0 || (!this.#board && !this.#trouble);
    write(this.#parts.empty, this.#trouble?.words ?? (this.#isFinal ? 'Nobody scored.' : 'The first score takes rank 1.'));
    if (!this.#board) return null;
    const moving = !still && !isReduced();
    const look = { now: now(), me: this.#user, isYou: false, moving, marking: !still, leaderboard };
    const ranked = ranks(entries, leaderboard?.ranks);
    const moved = this.#rows.paint(entries, ranked, look);
    this.#pin(entries, ranked, look);
    return moved;
  }

  /** The followed player's own row, below the others, where it is not among them. */
  #pin(entries, ranked, look) {
    const at = entries.findIndex(({ user_id }) => user_id === this.#user);
    const outside = at < 0 && this.#rank?.rank ? { ...this.#rank, username: this.#name ?? `Player ${this.#user}` } : null;
    const player = at >= this.top ? { ...entries[at], rank: ranked[at] } : outside;
    this.#parts.pinned.hidden = !player;
    if (player) this.#pinned.paint([player], [player.rank], look);
  }

  get #isFinal() { return this.#board !== null && hasEnded(this.board, this.#board, this.#client.now()); }

  #showLine() {
    const about = { openedAt: this.#openedAt, hasBoard: this.#board !== null, isFinal: this.#isFinal, refused: this.#trouble?.lamp };
    const said = describe(this.#client, about, now());
    write(this.#parts.status, said.lamp);
    this.#parts.status.title = said.note;
    this.#parts.status.classList.toggle('on', said.on);
    this.#parts.section.classList.toggle('old', said.old);
    if (said.lamp === this.#state) return;
    this.#state = said.lamp;
    this.#emit('state', { state: said.lamp, live: said.on });
  }
}

if (globalThis.customElements && !customElements.get('live-leaderboard')) {
  setInterval(() => { for (const element of elements) element.tick(false); }, 1000);
  document.addEventListener('visibilitychange', () => { for (const element of elements) element.tick(true); });
  customElements.define('live-leaderboard', LiveLeaderboard);
}
