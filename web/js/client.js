// Owns one connection to a leaderboard server: it comes back for ever, resumes, heals gaps, resends submissions.
// Never touches the page beyond its network and visibility events; keeps a bounded number of submissions.
// Assumes wire protocol v1 and a WebSocket class; that class, time and chance can be injected.
import { apply, described, GAP, RIGHTS } from './model/board.js';
import { now } from './model/clock.js';

export { RIGHTS };

const HELLO_MS = 10_000; // an attempt that is not greeted by then is dropped
const PING_MS = 15_000; // a ping this often; silence from one to the next means that the line is dead
const PROBE_MS = 4_000; // the same after the network or the page came back
const LATE_MS = 5_000; // a timer this late means that we slept, not the server
const OFF_MS = 500; // by less than this the server's time is as good as known: a message may take that long
const WAIT_MS = 30_000; // the longest wait between attempts
const KEEP = 100; // submissions waiting at a time
const PATIENCE = { 1012: 2, 4401: 5, 4429: 5 }; // attempts to count as made when the server closes with this code
const ALIAS = /^(.+:)?(?:current|previous)_(.+)$/; // stands for one window after the other
const PASSING = new Set(['overloaded', 'unavailable', 'too_many']); // refusals that time heals

const systemTime = {
  now,
  set: (call, ms) => setTimeout(call, ms),
  clear: (timer) => clearTimeout(timer),
};

/** `default`'s boards go without a slug. */
const named = (board) => board.replace(/^default:/, '');

/** Whether `alias` may stand for the board `id`. */
function mayStandFor(alias, id) {
  const [, slug = '', kind] = ALIAS.exec(alias) ?? [];
  return kind !== undefined && id.startsWith(`${slug}${kind}_`);
}

/** Not to be guessed where the engine can make such a thing; where it cannot, unlike any other all the same. */
function freshId() {
  const bytes = Uint8Array.from({ length: 16 }, () => Math.random() * 256);
  globalThis.crypto?.getRandomValues?.(bytes);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Client {
  state = 'connecting'; // connecting, live, reconnecting, closed
  retryAt = null; // when the next attempt starts, null while one is under way
  heardAt = null; // when the server was last heard; both in milliseconds of the page's clock, which nobody can set

  #url; #Socket; #time; #random; #keep; #hooks = [];
  #still = new Set(); // undefined: those of `default`
  #token; #brought; #authed = false; #authWaits = [];
  #barred = false; // something was refused, or ended, for want of rights: the next good token asks for it again
  #socket = null; #greetedAt = null; #attempt = 0; #comeBackAt = 0; #offset = 0; #pingedAt = null;
  #retry; #life; #lifeDue; #silent; #later = new Set();
  #listeners = new Map(); #subs = new Map(); #watches = new Map(); #pending = new Map();

  constructor(url, { token, WebSocket, time = systemTime, random = Math.random, keep = KEEP, page } = {}) {
    this.#url = String(url).replace(/^http/, 'ws');
    this.#Socket = WebSocket ?? globalThis.WebSocket;
    if (!this.#Socket) throw new TypeError('There is no WebSocket here. Hand one in: new Client(url, { WebSocket }).');
    this.#token = token; this.#time = time; this.#random = random; this.#keep = keep;
    const { document = globalThis.document, window = globalThis } = page ?? {};
    this.#hook(window, 'online', () => this.#nudge(true));
    this.#hook(window, 'offline', () => this.#nudge(false));
    this.#hook(document, 'visibilitychange', () => document.hidden || this.#nudge(false));
    this.#open();
  }

  /** The server's time, in milliseconds since 1970. */
  now() { return this.#time.now() + this.#offset; }

  /** Whether a followed board stands still. */
  get stale() { return [{}, ...this.#subs.values()].some(({ id }) => this.#still.has(id)); }

  /** Submissions without an outcome yet, oldest first. */
  get waiting() { return Array.from(this.#pending.values(), ({ message }) => message); }

  /** Calls `listener` with each server message of `type`; for 'state' with the client. Answers how to stop. */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    const all = this.#listeners.get(type).add(listener);
    return () => all.delete(listener);
  }

  /** Calls `listener(board, message)` at every change of a board; board is null until its first snapshot. */
  subscribe(board, listener, { describe = false } = {}) {
    const asked = named(board);
    let sub = this.#subs.get(asked);
    if (!sub || (describe && !sub.describe)) {
      this.#subs.set(asked, sub ??= { asked, id: null, board: null, asking: false, listeners: new Set() });
      sub.describe = describe || undefined;
      this.#ask(sub);
    }
    if (sub.board) this.#call(listener, sub.board, { type: 'snapshot', ...sub.board });
    sub.listeners.add(listener);
    return () => this.#leave(this.#subs, asked, sub, listener, { type: 'unsubscribe', board: asked });
  }

  /** Calls `listener` with one user's `rank` messages, wherever on the board that user is. */
  watch(asked, user_id, listener) {
    const board = named(asked);
    const key = `${board} ${user_id}`;
    let watch = this.#watches.get(key);
    if (!watch) {
      this.#watches.set(key, watch = { board, user_id, last: null, listeners: new Set() });
      this.#send({ type: 'watch', board, user_id });
    } else if (watch.last) this.#call(listener, watch.last);
    watch.listeners.add(listener);
    return () => this.#leave(this.#watches, key, watch, listener, { type: 'unwatch', board, user_id });
  }

  /** Resolves with `accepted` or `rejected`, however often the line breaks until then. */
  submit({ submission_id = freshId(), leaderboard, score, score_added, metadata, board, with: all, reason, user_id }) {
    const message = { type: 'submit', submission_id, leaderboard, score, score_added, metadata, board, with: all, reason, user_id };
    const known = this.#pending.get(submission_id);
    if (known && known.message.leaderboard === leaderboard) return known.outcome;
    if (known) return known.outcome.then(() => this.submit(message)); // answers name no leaderboard
    if (this.state === 'closed' || this.#pending.size >= this.#keep) {
      const why = 'Too many submissions are waiting, or the client is closed.';
      return Promise.resolve({ type: 'rejected', submission_id, code: 'overloaded', message: why, retry_after_ms: null });
    }
    const entry = { message };
    entry.outcome = new Promise((resolve) => { entry.resolve = resolve; });
    this.#pending.set(submission_id, entry);
    this.#sendPending(entry);
    this.#emit('state', this);
    return entry.outcome;
  }

  /** Resolves with `authenticated`, or with the `error` that refused the token. */
  auth(token) {
    this.#token = token;
    this.#authed = false;
    this.#identify();
    return new Promise((resolve) => this.#authWaits.push(resolve));
  }

  /** Resolves with the token in use: to ask the server over HTTP as well. */
  token() { return Promise.resolve(this.#brought ?? this.#token).catch(() => undefined); }

  close() {
    this.#hangUp();
    for (const timer of this.#later) this.#time.clear(timer);
    for (const unhook of this.#hooks) unhook();
    this.#change('closed');
  }

  // ---- the line

  #open() {
    this.#hangUp();
    const socket = this.#socket = new this.#Socket(this.#url);
    socket.onmessage = ({ data }) => this.#hear(data);
    socket.onclose = ({ code }) => this.#lost(code);
    socket.onerror = () => {}; // a close follows
    this.#expect(HELLO_MS);
    this.#emit('state', this);
  }

  #hangUp() {
    const socket = this.#socket;
    this.#socket = this.#greetedAt = this.retryAt = null;
    this.#authed = false;
    this.#time.clear(this.#retry);
    this.#time.clear(this.#life);
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** The page's clock stands still while the device sleeps, and no two clocks run alike. */
  #setClock(told, atLeast) {
    const off = Date.parse(told) - this.now();
    if (Math.abs(off) >= atLeast) this.#offset += off;
  }

  #lost(code) {
    const now = this.#time.now();
    if (this.#greetedAt !== null && now - this.#greetedAt > PING_MS) this.#attempt = 0;
    this.#hangUp();
    if (code === 4401) this.#answerAuth({ type: 'error', code: 'unauthorized', message: 'The token was refused.' });
    this.#attempt = Math.max(this.#attempt, PATIENCE[code] ?? 0);
    const jitter = this.#random() * Math.min(WAIT_MS, 1000 * 2 ** this.#attempt++);
    this.retryAt = Math.max(now + jitter, this.#comeBackAt);
    this.#comeBackAt = 0;
    this.#retry = this.#time.set(() => this.#open(), this.retryAt - now);
    this.#change(this.heardAt === null ? 'connecting' : 'reconnecting');
  }

  /** Something must be heard within `ms`. The next ping leaves on this timer, so no flood of messages starves it. */
  #expect(ms) {
    this.#silent = true;
    this.#lifeDue = this.#time.now() + ms;
    this.#time.clear(this.#life);
    this.#life = this.#time.set(() => this.#check(), ms);
  }

  #check() {
    const slept = this.#time.now() - this.#lifeDue > LATE_MS; // what came meanwhile is not read yet
    if (this.#silent && !slept) return this.#lost();
    for (const sub of this.#subs.values()) if (sub.asking) this.#ask(sub);
    this.#ping(PING_MS);
  }

  #ping(ms) {
    this.#pingedAt = this.#time.now();
    this.#send({ type: 'ping' });
    this.#expect(ms);
  }

  #nudge(networkIsBack) {
    if (this.#greetedAt !== null) return this.#ping(PROBE_MS);
    if (!networkIsBack && this.#socket) return; // an attempt is under way
    this.#attempt = 0;
    this.#open();
  }

  // ---- what comes in

  #hear(data) {
    let message;
    try { message = JSON.parse(data); } catch { return; }
    this.#silent = false;
    this.heardAt = this.#time.now();
    if (Object.hasOwn(this.#on, message?.type)) this.#on[message.type](message);
    this.#emit(message?.type, message);
  }

  #on = {
    hello: (message) => {
      this.#greetedAt = this.#time.now();
      this.#setClock(message.now, 0);
      this.#still.clear();
      this.#ping(PING_MS);
      this.#identify();
      this.#askAll();
      this.#resend();
      this.#change('live');
    },
    pong: (message) => { // one that took long tells what time it was
      if (this.#time.now() - this.#pingedAt < OFF_MS) this.#setClock(message.now, OFF_MS);
    },
    subscribed: (message) => {
      const sub = this.#subs.get(message.as ?? message.board);
      this.#still.delete(message.board);
      if (!sub) return;
      const { leaderboard, window } = message;
      if (sub.missing) this.#rewatch(sub.asked);
      Object.assign(sub, { id: message.board, missing: false, description: leaderboard && { leaderboard, window } });
      if (sub.board?.board !== sub.id) sub.board = null; // the alias moved on while we were away
      if (!message.resumed) return;
      if (!sub.board) return this.#ask(sub); // two boards may stand at the same version
      sub.asking = false;
      if (sub.description) sub.board = described(sub.board, sub.description);
      this.#tell(sub, message);
    },
    unsubscribed: (message) => {
      const sub = this.#subs.get(message.as);
      if (!sub?.id) return; // the answer to our own, after which it was asked for anew
      this.#barred = true;
      this.#tell(sub, message);
      this.#renew();
    },
    unwatched: () => { this.#barred = true; },
    snapshot: (message) => this.#reduce(message),
    diff: (message) => this.#reduce(message),
    rollover: (message) => {
      const sub = this.#subs.get(message.as);
      const isOver = message.to === null; // nothing follows yet: the next season has not begun
      if (sub && sub.id !== message.to) {
        const description = sub.description && { leaderboard: sub.description.leaderboard }; // the next window is not known
        Object.assign(sub, { id: message.to, board: null, asking: !isOver, missing: isOver, description });
        this.#tell(sub, message);
      }
      this.#rewatch(message.as, isOver);
    },
    rank: (message) => {
      for (const watch of this.#watches.values()) {
        const real = this.#subs.get(watch.board)?.id ?? watch.board;
        if (watch.user_id !== message.user_id || (real !== message.board && !mayStandFor(real, message.board))) continue;
        watch.last = message;
        for (const listener of watch.listeners) this.#call(listener, message);
      }
    },
    accepted: (message) => this.#settle(message),
    rejected: (message) => {
      const entry = this.#pending.get(message.submission_id);
      if (!entry || !PASSING.has(message.code)) return this.#settle(message);
      this.#after((message.retry_after_ms ?? 1000) * (1 + this.#random()), () => this.#sendPending(entry));
    },
    authenticated: (message) => {
      this.#authed = true;
      this.#answerAuth(message);
      if (this.#barred) this.#askAll();
      this.#resend();
    },
    error: (message) => {
      for (const sub of this.#subs.values()) {
        if (message.board !== sub.asked && message.board !== sub.id) continue;
        sub.asking = false;
        this.#tell(sub, message);
        sub.missing = message.code === 'unknown_board' && sub.asked.includes(':'); // being made, or between seasons
        const wait = PASSING.has(message.code) ? 1000 : sub.missing ? 10_000 : 0;
        if (!wait || sub.isDue) continue;
        sub.isDue = true;
        this.#after(wait + 9 * wait * this.#random(), () => { sub.isDue = false; this.#ask(sub, sub.board); });
      }
      if (message.board) {
        if (RIGHTS.has(message.code)) this.#barred = true;
        return;
      }
      if (PASSING.has(message.code) && this.#token && !this.#authed) this.#identifyLater(2000);
      if (!RIGHTS.has(message.code)) return;
      this.#authed = false;
      if (typeof this.#token === 'function') this.#identifyLater(5000);
      this.#answerAuth(message);
    },
    status: ({ live, board }) => { this.#still[live ? 'delete' : 'add'](board); this.#emit('state', this); },
    reconnect: ({ after_ms }) => { // everybody is told the same, so each takes a moment of its own
      const socket = this.#socket;
      const wait = this.#random() * after_ms;
      this.#comeBackAt = this.#time.now() + wait;
      this.#after(wait, () => { if (this.#socket === socket) { this.#comeBackAt = 0; this.#open(); } });
    },
  };

  #identify() {
    const token = this.#token;
    if (!token || this.#authed) return;
    if (typeof token !== 'function') return this.#send({ type: 'auth', token });
    const socket = this.#socket;
    this.#brought = Promise.resolve().then(() => token());
    this.#brought.then((brought) => socket === this.#socket && this.#send({ type: 'auth', token: brought }), () => this.#identifyLater(5000));
  }

  #identifyLater(ms) { this.#after(ms + ms * this.#random(), () => this.#identify()); }

  /** The token has ended: whoever brings tokens is asked for the next. */
  #renew() {
    if (typeof this.#token !== 'function' || !this.#authed) return;
    this.#authed = false;
    this.#identify();
  }

  // ---- boards and submissions

  #askAll() {
    this.#barred = false;
    for (const sub of this.#subs.values()) this.#ask(sub, sub.board);
    for (const { board, user_id } of this.#watches.values()) this.#send({ type: 'watch', board, user_id });
  }

  #ask(sub, board) {
    if (this.#subs.get(sub.asked) !== sub || this.#greetedAt === null) return;
    sub.asking = true;
    const since = board ? { epoch: board.epoch, version: board.version } : undefined;
    if (since && sub.id !== sub.asked) since.board = sub.id; // an alias, which may stand for another board by now
    this.#send({ type: 'subscribe', board: sub.asked, since, describe: sub.describe });
  }

  /** The name stands for another board by now; `quietly`: for none. */
  #rewatch(asked, quietly = false) {
    for (const watch of this.#watches.values()) {
      if (watch.board !== asked) continue;
      watch.last = null;
      if (!quietly) this.#send({ type: 'watch', board: asked, user_id: watch.user_id });
    }
  }

  #reduce(message) {
    for (const sub of this.#subs.values()) {
      if (sub.id !== message.board) continue;
      const next = apply(sub.board, message, sub.description);
      if (next === GAP) { if (!sub.asking) this.#ask(sub); continue; }
      sub.asking = false;
      if (next === sub.board) continue;
      sub.board = next;
      this.#tell(sub, message);
      if (sub.description && !sub.description.window) this.#ask(sub, next); // the answer says until when
    }
  }

  #leave(all, key, one, listener, goodbye) {
    one.listeners.delete(listener);
    if (one.listeners.size || all.get(key) !== one) return;
    all.delete(key);
    this.#send(goodbye);
  }

  #resend() { for (const entry of this.#pending.values()) this.#sendPending(entry); }

  #sendPending(entry) {
    const waits = this.#pending.get(entry.message.submission_id) === entry;
    if (waits && (this.#authed || !this.#token)) this.#send(entry.message);
  }

  #settle(message) {
    const entry = this.#pending.get(message.submission_id);
    if (!entry) return;
    this.#pending.delete(message.submission_id);
    entry.resolve(message);
    this.#emit('state', this);
  }

  #answerAuth(message) { for (const resolve of this.#authWaits.splice(0)) resolve(message); }

  // ---- small things

  #send(message) { if (this.#greetedAt !== null) this.#socket.send(JSON.stringify(message)); }

  #tell(sub, message) { for (const listener of sub.listeners) this.#call(listener, sub.board, message); }

  #emit(type, message) { for (const listener of this.#listeners.get(type) ?? []) this.#call(listener, message); }

  #call(listener, ...values) {
    try { listener(...values); } catch (error) { queueMicrotask(() => { throw error; }); } // theirs, not ours
  }

  #change(state) {
    this.state = state;
    this.#emit('state', this);
  }

  #after(ms, call) {
    const timer = this.#time.set(() => { this.#later.delete(timer); call(); }, ms);
    this.#later.add(timer);
  }

  #hook(target, type, listener) {
    if (!target?.addEventListener) return;
    target.addEventListener(type, listener);
    this.#hooks.push(() => target.removeEventListener(type, listener));
  }
}
