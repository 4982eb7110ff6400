// The client against a socket and a clock that this file moves by hand.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';

import { Client } from '../../../../web/js/client.js';

class Time {
  clock = 1_000_000;
  timers = new Map();
  next = 1;
  now = () => this.clock;
  set = (call, ms) => { this.timers.set(this.next, { at: this.clock + ms, call }); return this.next++; };
  clear = (timer) => { this.timers.delete(timer); };
  pass(ms) {
    const end = this.clock + ms;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.clock = Math.max(this.clock, due[1].at);
      due[1].call();
    }
    this.clock = end;
  }
}

class Socket {
  static all = [];
  sent = [];
  closed = false;
  constructor(url) { this.url = url; Socket.all.push(this); }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }
  say(...messages) { for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) }); }
  greet() { this.say({ type: 'hello', protocol: 1, now: new Date(2_000_000).toISOString() }); return this; }
  drop(code = 1006) { this.onclose?.({ code }); }
  of(type) { return this.sent.filter((message) => message.type === type); }
}

const last = () => Socket.all.at(-1);
let time;
let page;
const open = (options = {}) => new Client('http://host/ws', { WebSocket: Socket, time, random: () => 0.5, page, ...options });
const snapshot = (board, version, entries = []) => ({ type: 'snapshot', board, epoch: 'x', version, entries });
const diff = (board, from, version, upsert = []) => ({ type: 'diff', board, epoch: 'x', from, version, upsert, remove: [] });
const subscribed = (board, as, resumed = false) => ({ type: 'subscribed', board, as, resumed });

beforeEach(() => {
  Socket.all = [];
  time = new Time();
  const document = new EventTarget();
  document.hidden = false;
  page = { window: new EventTarget(), document };
});

test('board, clock and connection together stay under 8 KiB compressed', () => {
  const sizes = ['model/board.js', 'model/clock.js', 'client.js'].map((name) => gzipSync(readFileSync(new URL(`../../../../web/js/${name}`, import.meta.url))).length);
  assert.ok(sizes.reduce((sum, size) => sum + size) <= 8 * 1024, `${sizes} bytes`);
});

test('http addresses become ws addresses, and the server time is known after hello', () => {
  const client = open();
  assert.equal(last().url, 'ws://host/ws');
  assert.equal(client.state, 'connecting');
  last().greet();
  assert.equal(client.state, 'live');
  assert.equal(client.now(), 2_000_000);
});

test('the server tells the time with each pong: a clock that stood still while the device slept is put right', () => {
  const client = open();
  const pong = (at) => last().say({ type: 'pong', now: new Date(at).toISOString() });
  last().greet();
  pong(2_000_200);
  assert.equal(client.now(), 2_000_000, 'as long as a message may take, the clock keeps its pace');
  time.pass(15_000);
  pong(2_015_000 + 3_600_000);
  assert.equal(client.now(), 5_615_000);
  time.pass(15_000);
  pong(2_030_000);
  assert.equal(client.now(), 2_030_000, 'also back');
  time.pass(15_000);
  time.pass(2_000);
  pong(2_045_000);
  assert.equal(client.now(), 2_047_000, 'an answer that took long does not count');
  last().say({ type: 'pong' });
  assert.equal(client.now(), 2_047_000, 'nor does one that tells no time');
});

test('ids are made where there is no crypto, or not all of it, and are never the same', async () => {
  const had = Object.getOwnPropertyDescriptor(globalThis, 'crypto');
  const ids = new Set();
  try {
    for (const value of [undefined, {}, { getRandomValues: (bytes) => bytes.fill(7) }]) {
      Object.defineProperty(globalThis, 'crypto', { value, configurable: true, writable: true });
      const client = open();
      last().greet();
      for (let i = 0; i < (value?.getRandomValues ? 1 : 50); i += 1) client.submit({ score_added: 1 });
      for (const { submission_id } of last().of('submit')) ids.add(submission_id);
      client.close();
    }
  } finally {
    Object.defineProperty(globalThis, 'crypto', had);
  }
  assert.equal(ids.size, 101);
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/);
  assert.ok(ids.has('07'.repeat(16)), 'where there is a source that nobody guesses, it is used');
});

test('subscribe, snapshot, diff: the listener sees each board', () => {
  const seen = [];
  const client = open();
  client.subscribe('current_week', (board, message) => seen.push([message.type, board?.version, board?.entries.length]));
  last().greet().say(subscribed('week_of_2026_11_23', 'current_week'), snapshot('week_of_2026_11_23', 3),
    diff('week_of_2026_11_23', 3, 4, [{ user_id: 1, username: 'a', score: 5 }]));
  assert.deepEqual(last().of('subscribe'), [{ type: 'subscribe', board: 'current_week' }]);
  assert.deepEqual(seen, [['snapshot', 3, 0], ['diff', 4, 1]]);
});

test('a second listener gets the board at once, and only the last to leave unsubscribes', () => {
  const client = open();
  const leave = client.subscribe('all_time', () => {});
  last().greet().say(subscribed('all_time'), snapshot('all_time', 3));
  let version;
  const leaveToo = client.subscribe('all_time', (board) => { version = board.version; });
  assert.equal(version, 3);
  assert.equal(last().of('subscribe').length, 1);
  leave();
  assert.equal(last().of('unsubscribe').length, 0);
  leaveToo();
  assert.deepEqual(last().of('unsubscribe'), [{ type: 'unsubscribe', board: 'all_time' }]);
});

test('a lost diff is noticed, asked for once, and healed by the snapshot', () => {
  const versions = [];
  const client = open();
  client.subscribe('all_time', (board) => versions.push(board.version));
  last().greet().say(subscribed('all_time'), snapshot('all_time', 3), diff('all_time', 4, 5), diff('all_time', 5, 6));
  assert.deepEqual(last().of('subscribe'), [{ type: 'subscribe', board: 'all_time' }, { type: 'subscribe', board: 'all_time' }]);
  last().say(subscribed('all_time'), snapshot('all_time', 6), diff('all_time', 6, 7));
  assert.deepEqual(versions, [3, 6, 7]);
});

test('a snapshot that never comes is asked for again', () => {
  const client = open();
  client.subscribe('all_time', () => {});
  last().greet();
  time.pass(14_000);
  last().say({ type: 'pong' });
  time.pass(1_000);
  assert.equal(last().of('subscribe').length, 2);
});

test('reconnecting resumes with since, and an equal version needs nothing else', () => {
  const seen = [];
  const client = open();
  client.subscribe('all_time', (board, message) => seen.push([message.type, board.version]));
  last().greet().say(subscribed('all_time'), snapshot('all_time', 3));
  last().drop();
  assert.equal(client.state, 'reconnecting');
  time.pass(1_000);
  last().greet();
  assert.deepEqual(last().of('subscribe'), [{ type: 'subscribe', board: 'all_time', since: { epoch: 'x', version: 3 } }]);
  last().say(subscribed('all_time', undefined, true), diff('all_time', 3, 4));
  assert.deepEqual(seen, [['snapshot', 3], ['subscribed', 3], ['diff', 4]]);
});

test('an alias that moved on while the line was down takes nothing over, even at the same version', () => {
  const seen = [];
  const client = open();
  client.subscribe('current_week', (board) => seen.push(board?.board));
  last().greet().say(subscribed('week_of_2026_11_16', 'current_week'), snapshot('week_of_2026_11_16', 3));
  last().drop();
  time.pass(1_000);
  last().greet().say(subscribed('week_of_2026_11_23', 'current_week', true));
  assert.equal(last().of('subscribe').at(-1).since, undefined);
  last().say(subscribed('week_of_2026_11_23', 'current_week'), snapshot('week_of_2026_11_23', 3));
  assert.deepEqual(seen, ['week_of_2026_11_16', 'week_of_2026_11_23']);
});

test('rollover empties the alias until the new week is there; the old week by its id stays', () => {
  const week = [];
  const old = [];
  const client = open();
  client.subscribe('current_week', (board, message) => week.push([message.type, board?.board]));
  client.subscribe('week_of_2026_11_16', (board, message) => old.push([message.type, board.board]));
  last().greet().say(subscribed('week_of_2026_11_16', 'current_week'), snapshot('week_of_2026_11_16', 3),
    subscribed('week_of_2026_11_16'), snapshot('week_of_2026_11_16', 4));
  week.length = old.length = 0;
  last().say({ type: 'rollover', as: 'current_week', from: 'week_of_2026_11_16', to: 'week_of_2026_11_23' },
    snapshot('week_of_2026_11_23', 0), diff('week_of_2026_11_16', 4, 5));
  assert.deepEqual(week, [['rollover', undefined], ['snapshot', 'week_of_2026_11_23']]);
  assert.deepEqual(old, [['diff', 'week_of_2026_11_16']]);
});

test('waits grow with full jitter up to 30 s and never end', () => {
  const client = open({ random: () => 1 });
  const waits = [];
  for (let i = 0; i < 40; i += 1) {
    last().drop();
    waits.push(client.retryAt - time.now());
    time.pass(client.retryAt - time.now());
  }
  assert.deepEqual(waits.slice(0, 7), [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  assert.equal(Socket.all.length, 41);
  const lucky = open({ random: () => 0 });
  last().drop();
  assert.equal(lucky.retryAt, time.now());
});

test('a line that held forgets the waits before it', () => {
  const client = open({ random: () => 1 });
  for (let i = 0; i < 6; i += 1) { last().drop(); time.pass(30_000); }
  last().greet();
  time.pass(14_000);
  last().say({ type: 'pong' });
  time.pass(2_000);
  last().drop();
  assert.equal(client.retryAt - time.now(), 1000);
});

test('a server that greets and hangs up at once is not hammered', () => {
  const client = open({ random: () => 1 });
  for (let i = 0; i < 5; i += 1) { last().greet().drop(); time.pass(30_000); }
  last().greet().drop();
  assert.equal(client.retryAt - time.now(), 30_000);
});

test('online and a page that becomes visible try at once', () => {
  const client = open({ random: () => 1 });
  for (let i = 0; i < 6; i += 1) { last().drop(); time.pass(client.retryAt - time.now()); }
  last().drop();
  const before = Socket.all.length;
  page.window.dispatchEvent(new Event('online'));
  assert.equal(Socket.all.length, before + 1);
  last().drop();
  assert.equal(client.retryAt - time.now(), 1000, 'and start over with short waits');
  page.document.hidden = true;
  page.document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(Socket.all.length, before + 1);
  page.document.hidden = false;
  page.document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(Socket.all.length, before + 2);
});

test('an open line is probed when the network changes, and given up after 4 s of silence', () => {
  const client = open();
  last().greet();
  page.window.dispatchEvent(new Event('offline'));
  assert.equal(last().of('ping').length, 2);
  time.pass(4_000);
  assert.equal(client.state, 'reconnecting');
});

test('silence from one ping to the next ends the line', () => {
  const client = open();
  last().greet();
  time.pass(15_000);
  assert.equal(client.state, 'reconnecting');
  assert.ok(Socket.all[0].closed);
});

test('a flood of messages neither starves the pings nor passes for silence', () => {
  const client = open();
  client.subscribe('all_time', () => {});
  last().greet().say(subscribed('all_time'), snapshot('all_time', 0));
  for (let version = 0; version < 2000; version += 1) {
    last().say(diff('all_time', version, version + 1));
    time.pass(50);
  }
  assert.equal(client.state, 'live');
  assert.equal(last().of('ping').length, 1 + Math.floor(2000 * 50 / 15_000));
});

test('after a sleep of the machine the line is asked first, not cut', () => {
  const client = open();
  last().greet();
  const [[timer, { call }]] = time.timers;
  time.timers.delete(timer);
  time.clock += 3_600_000;
  call();
  assert.equal(client.state, 'live');
  assert.equal(last().of('ping').length, 2);
  time.pass(15_000);
  assert.equal(client.state, 'reconnecting');
});

test('an attempt that is never greeted is dropped', () => {
  const client = open();
  time.pass(10_000);
  assert.ok(Socket.all[0].closed);
  assert.equal(client.state, 'connecting');
  time.pass(1_000);
  assert.equal(Socket.all.length, 2);
});

test('told to reconnect, each client comes back at a moment of its own within the time given', () => {
  open({ random: () => 0.25 });
  last().greet().say({ type: 'reconnect', after_ms: 2_000 });
  time.pass(499);
  assert.equal(Socket.all.length, 1, 'it stays until its moment');
  time.pass(1);
  assert.equal(Socket.all.length, 2);
  assert.ok(Socket.all[0].closed);
});

test('told to reconnect and then cut off, it still waits for its moment', () => {
  const client = open({ random: () => 0.9 });
  last().greet().say({ type: 'reconnect', after_ms: 10_000 });
  last().drop(1012);
  assert.equal(client.retryAt - time.now(), 9_000);
  time.pass(9_000);
  assert.equal(Socket.all.length, 2);
});

test('close codes that concern everybody or us alone are waited out longer', () => {
  for (const [code, ms] of [[1012, 4_000], [4401, 30_000], [4429, 30_000], [4408, 1_000]]) {
    const client = open({ random: () => 1 });
    last().greet().drop(code);
    assert.equal(client.retryAt - time.now(), ms, String(code));
  }
});

test('a submission made offline is sent when the line is there, and again under the same id until answered', async () => {
  const client = open();
  const outcome = client.submit({ score_added: 5, reason: 'win', submission_id: 's1' });
  assert.equal(client.waiting.length, 1);
  last().greet();
  assert.deepEqual(last().of('submit'), [{ type: 'submit', submission_id: 's1', score_added: 5, reason: 'win' }]);
  last().drop();
  time.pass(1_000);
  last().greet();
  assert.equal(last().of('submit')[0].submission_id, 's1');
  last().say({ type: 'accepted', submission_id: 's1', user_id: 7, total_score: 5, week_score: 5, duplicate: true });
  assert.equal((await outcome).duplicate, true);
  assert.equal(client.waiting.length, 0);
});

test('made-up submission ids are 32 hexadecimal digits and differ', () => {
  const client = open();
  client.submit({ score_added: 1 });
  client.submit({ score_added: 1 });
  const [a, b] = client.waiting.map(({ submission_id }) => submission_id);
  assert.match(a, /^[0-9a-f]{32}$/);
  assert.notEqual(a, b);
});

test('the same submission handed in twice waits once', async () => {
  const client = open();
  const [one, two] = [1, 2].map(() => client.submit({ score_added: 1, submission_id: 'a' }));
  assert.equal(client.waiting.length, 1);
  last().greet().say({ type: 'accepted', submission_id: 'a' });
  assert.equal(await one, await two);
});

test('what waits is bounded', async () => {
  const client = open({ keep: 2 });
  client.submit({ score_added: 1 });
  client.submit({ score_added: 1 });
  assert.equal((await client.submit({ score_added: 1 })).code, 'overloaded');
  assert.equal(client.waiting.length, 2);
});

test('a passing refusal is tried again after the hint, any other is the outcome', async () => {
  const client = open();
  const first = client.submit({ score_added: 1, submission_id: 'a' });
  const second = client.submit({ score_added: 1, submission_id: 'b' });
  last().greet();
  last().say({ type: 'rejected', submission_id: 'a', code: 'overloaded', message: '', retry_after_ms: 400 },
    { type: 'rejected', submission_id: 'b', code: 'unknown_user', message: '', retry_after_ms: null });
  assert.equal((await second).code, 'unknown_user');
  time.pass(599);
  assert.equal(last().of('submit').length, 2);
  time.pass(1);
  assert.equal(last().of('submit').length, 3);
  last().say({ type: 'accepted', submission_id: 'a' });
  assert.equal((await first).type, 'accepted');
});

test('with a token, submissions wait for the authentication, on every line anew', async () => {
  const client = open({ token: 't' });
  client.submit({ score_added: 1 });
  last().greet();
  assert.deepEqual(last().sent.map(({ type }) => type), ['ping', 'auth']);
  assert.ok(!last().url.includes('t=') && !last().url.includes('token'));
  last().say({ type: 'authenticated', user_id: 7 });
  assert.equal(last().of('submit').length, 1);
  last().drop();
  time.pass(1_000);
  last().greet();
  assert.equal(last().of('submit').length, 0);
});

test('auth answers with what the server said, and an expired token holds submissions back until the next', async () => {
  const client = open();
  last().greet();
  const refused = client.auth('old');
  last().say({ type: 'error', code: 'expired', message: 'sign in again' });
  assert.equal((await refused).code, 'expired');
  client.submit({ score_added: 1 });
  assert.equal(last().of('submit').length, 0);
  const taken = client.auth('new');
  last().say({ type: 'authenticated', user_id: 7 });
  assert.equal((await taken).user_id, 7);
  assert.equal(last().of('submit').length, 1);
});

test('a token that cannot be checked now is sent again', async () => {
  const client = open({ token: 't' });
  last().greet().say({ type: 'error', code: 'unavailable', message: '' });
  time.pass(3_000);
  assert.equal(last().of('auth').length, 2);
  last().say({ type: 'authenticated', user_id: 7 }, { type: 'error', code: 'overloaded', message: '' });
  time.pass(6_000);
  assert.equal(last().of('auth').length, 2);
  assert.equal(client.state, 'live');
});

test('a private board that ended with its token goes on with the next one', () => {
  const seen = [];
  const client = open({ token: 't' });
  client.subscribe('current_week', (board, message) => seen.push([message.type, board?.version]));
  client.watch('current_week', 7, () => {});
  last().greet().say({ type: 'authenticated', user_id: null }, subscribed('week_of_2026_11_23', 'current_week'), snapshot('week_of_2026_11_23', 3));
  last().say({ type: 'error', code: 'expired', message: '' }, { type: 'unsubscribed', board: 'week_of_2026_11_23', as: 'current_week' },
    { type: 'unwatched', board: 'week_of_2026_11_23', user_id: 7 });
  client.auth('next');
  assert.equal(last().of('subscribe').length, 1);
  last().say({ type: 'authenticated', user_id: null });
  assert.deepEqual(last().of('subscribe').at(-1), { type: 'subscribe', board: 'current_week', since: { epoch: 'x', version: 3, board: 'week_of_2026_11_23' } });
  assert.equal(last().of('watch').length, 2);
  last().say(subscribed('week_of_2026_11_23', 'current_week', true), diff('week_of_2026_11_23', 3, 4));
  assert.deepEqual(seen, [['snapshot', 3], ['unsubscribed', 3], ['subscribed', 3], ['diff', 4]]);
  client.auth('another');
  last().say({ type: 'authenticated', user_id: null });
  assert.equal(last().of('subscribe').length, 2, 'nothing had ended');
});

test('a private board refused while the token could not be checked comes as soon as it is', () => {
  const client = open({ token: 't' });
  client.subscribe('all_time', () => {});
  last().greet().say({ type: 'error', code: 'unavailable', message: '' }, { type: 'error', code: 'unauthorized', message: '', board: 'all_time' });
  time.pass(6_000);
  last().say({ type: 'authenticated', user_id: null });
  assert.equal(last().of('subscribe').length, 2);
});

test('an unsubscribed of our own is no loss', () => {
  const seen = [];
  const client = open();
  last().greet();
  client.subscribe('all_time', () => {})();
  client.subscribe('all_time', (board, message) => seen.push(message.type));
  last().say({ type: 'unsubscribed', board: 'all_time', as: 'all_time' }, subscribed('all_time'), snapshot('all_time', 1));
  assert.deepEqual(seen, ['snapshot']);
});

test('rank messages reach the watcher of their board and user, also through an alias and a rollover', () => {
  const ranks = [];
  const client = open();
  client.subscribe('current_week', () => {});
  client.watch('current_week', 7, ({ board, rank }) => ranks.push([board, rank]));
  last().greet().say(subscribed('week_of_2026_11_16', 'current_week'), snapshot('week_of_2026_11_16', 1));
  const rank = (board, user_id, value) => ({ type: 'rank', board, user_id, rank: value });
  last().say(rank('week_of_2026_11_16', 7, 12), rank('week_of_2026_11_16', 8, 1), rank('all_time', 7, 3));
  last().say({ type: 'rollover', as: 'current_week', from: 'week_of_2026_11_16', to: 'week_of_2026_11_23' });
  last().say(rank('week_of_2026_11_23', 7, 2));
  assert.deepEqual(ranks, [['week_of_2026_11_16', 12], ['week_of_2026_11_23', 2]]);
});

test('a board that is unavailable is asked for again; one that is unknown is not', () => {
  const codes = [];
  const client = open();
  client.subscribe('all_time', (board, message) => codes.push(message.code));
  client.subscribe('week_of_2026_11_24', (board, message) => codes.push(message.code));
  last().greet().say({ type: 'error', code: 'unavailable', message: '', board: 'all_time' },
    { type: 'error', code: 'unknown_board', message: '', board: 'week_of_2026_11_24' });
  assert.deepEqual(codes, ['unavailable', 'unknown_board']);
  time.pass(6_000);
  assert.deepEqual(last().of('subscribe').map(({ board }) => board), ['all_time', 'week_of_2026_11_24', 'all_time']);
});

test('status marks the boards as standing still', () => {
  const client = open();
  let calls = 0;
  client.on('state', () => { calls += 1; });
  last().greet().say({ type: 'status', live: false });
  assert.equal(client.stale, true);
  last().say({ type: 'status', live: true });
  assert.equal(client.stale, false);
  assert.equal(calls, 3);
});

test('status of one board is about that one, until its name stands for another', () => {
  const client = open();
  client.subscribe('sprint:current_day', () => {});
  last().greet().say({ type: 'subscribed', board: 'sprint:day_of_2026_11_30', as: 'sprint:current_day', resumed: false });
  last().say({ type: 'status', live: false, board: 'lap:all_time' });
  assert.equal(client.stale, false);
  last().say({ type: 'status', live: false, board: 'sprint:day_of_2026_11_30' });
  assert.equal(client.stale, true);
  last().say({ type: 'status', live: true });
  assert.equal(client.stale, true, 'that is of the boards of default');
  last().say({ type: 'rollover', as: 'sprint:current_day', from: 'sprint:day_of_2026_11_30', to: 'sprint:day_of_2026_12_01' });
  assert.equal(client.stale, false);
});

test('without a WebSocket class, as in Node 20, it says what to hand in', () => {
  const own = globalThis.WebSocket;
  try {
    globalThis.WebSocket = undefined;
    assert.throws(() => new Client('ws://x/ws'), /new Client\(url, \{ WebSocket \}\)/);
  } finally {
    globalThis.WebSocket = own;
  }
});

test('what is not JSON, not an object or of an unknown type is passed over', () => {
  const client = open();
  last().greet();
  last().onmessage({ data: 'not json' });
  last().onmessage({ data: 'null' });
  last().say({ type: 'from the future' }, { type: 'constructor' }, 7);
  assert.equal(client.state, 'live');
});

test('closed is closed: no timer, no listener, no socket is left', async () => {
  const client = open();
  last().greet().say({ type: 'reconnect', after_ms: 5_000 });
  client.close();
  assert.equal(client.state, 'closed');
  assert.equal(time.timers.size, 0);
  page.window.dispatchEvent(new Event('online'));
  time.pass(60_000);
  assert.equal(Socket.all.length, 1);
  assert.ok(last().closed);
  assert.equal((await client.submit({ score_added: 1 })).type, 'rejected');
});

// ---- many leaderboards

const SPRINT = { slug: 'sprint', title: 'Sprint', order: 'ascending', ties: 'first', ranks: 'competition', format: { kind: 'duration', unit: 'ms' } };
const days = (day) => ({ kind: 'day', starts: `2026-11-${day}T00:00:00.000Z`, ends: `2026-11-${day + 1}T00:00:00.000Z` });
const told = (board, as, more = {}) => ({ ...subscribed(board, as), leaderboard: SPRINT, window: days(23), ...more });
const line = (user_id, score, at, username = `n${user_id}`) => ({ user_id, score, at: [at, user_id], username });

test('a described board sorts by its description, which stands beside its entries', () => {
  let board;
  const client = open();
  client.subscribe('sprint:current_day', (next) => { board = next; });
  last().greet().say(told('sprint:day_of_2026_11_23', 'sprint:current_day'),
    snapshot('sprint:day_of_2026_11_23', 3, [line(1, 50, 1)]),
    diff('sprint:day_of_2026_11_23', 3, 4, [line(2, 50, 2), line(3, 40, 9)]));
  assert.deepEqual(board.entries.map(({ user_id }) => user_id), [3, 1, 2]);
  assert.deepEqual([board.leaderboard, board.window], [SPRINT, days(23)]);
});

test('a description that is sent again replaces the old one, with its snapshot and without', () => {
  const seen = [];
  const client = open();
  client.subscribe('sprint:all_time', ({ leaderboard, entries }, { type }) => seen.push([type, leaderboard.order, ...entries.map(({ user_id }) => user_id)]));
  const entries = [line(1, 40, 1), line(2, 50, 2)];
  last().greet().say(told('sprint:all_time', 'sprint:all_time'), snapshot('sprint:all_time', 3, entries));
  const leaderboard = { ...SPRINT, order: 'descending' };
  last().say(told('sprint:all_time', 'sprint:all_time', { leaderboard }), snapshot('sprint:all_time', 4, entries.toReversed()));
  last().say(diff('sprint:all_time', 4, 5, [line(3, 45, 3)]));
  last().drop();
  time.pass(1_000);
  last().greet().say(told('sprint:all_time', 'sprint:all_time', { resumed: true }));
  assert.deepEqual(seen, [['snapshot', 'ascending', 1, 2], ['snapshot', 'descending', 2, 1], ['diff', 'descending', 2, 3, 1], ['subscribed', 'ascending', 1, 3, 2]]);
});

test('`default` is described where that is asked for, and its boards go by their published ids', () => {
  let board;
  const client = open();
  client.subscribe('default:all_time', () => {});
  client.watch('default:all_time', 7, () => {});
  last().greet().say(subscribed('all_time', 'all_time'), snapshot('all_time', 3));
  client.subscribe('all_time', (next) => { board = next; }, { describe: true });
  assert.deepEqual(last().of('subscribe'), [{ type: 'subscribe', board: 'all_time' }, { type: 'subscribe', board: 'all_time', describe: true }]);
  assert.deepEqual(last().of('watch'), [{ type: 'watch', board: 'all_time', user_id: 7 }]);
  last().say({ ...subscribed('all_time', 'all_time'), leaderboard: { slug: 'default', title: 'Points' }, window: { kind: 'all_time', starts: null, ends: null } }, snapshot('all_time', 3));
  assert.equal(board.leaderboard.title, 'Points');
});

test('any alias moves on: the old rows go, and until when the next window runs is asked for if nobody says it', () => {
  const seen = [];
  const client = open();
  client.subscribe('sprint:current_day', (board, { type }) => seen.push([type, board?.board, board?.window?.starts]));
  const [first, second, third] = ['23', '24', '25'].map((day) => `sprint:day_of_2026_11_${day}`);
  last().greet().say(told(first, 'sprint:current_day'), snapshot(first, 3));
  last().say({ type: 'rollover', as: 'sprint:current_day', from: first, to: second }, told(second, 'sprint:current_day', { window: days(24) }), snapshot(second, 0));
  assert.equal(last().of('subscribe').length, 1);
  last().say({ type: 'rollover', as: 'sprint:current_day', from: second, to: third }, snapshot(third, 0));
  assert.deepEqual(last().of('subscribe').at(-1), { type: 'subscribe', board: 'sprint:current_day', since: { epoch: 'x', version: 0, board: third } });
  last().say(told(third, 'sprint:current_day', { window: days(25), resumed: true }));
  const [a, b, c] = [23, 24, 25].map((day) => days(day).starts);
  assert.deepEqual(seen, [['snapshot', first, a], ['rollover', undefined, undefined], ['snapshot', second, b], ['rollover', undefined, undefined],
    ['snapshot', third, undefined], ['subscribed', third, c]]);
});

test('between seasons there is nothing, and the next one comes by itself, with those who are watched', () => {
  const seen = [];
  const ranks = [];
  const client = open();
  client.subscribe('sprint:current_season', (board, { type, to }) => seen.push([type, board?.board ?? to]));
  client.watch('sprint:current_season', 7, ({ rank }) => ranks.push(rank));
  last().greet().say(told('sprint:season_spring', 'sprint:current_season'), snapshot('sprint:season_spring', 3));
  last().say({ type: 'rollover', as: 'sprint:current_season', from: 'sprint:season_spring', to: null });
  assert.equal(last().of('watch').length, 1, 'of no board there is no rank');
  time.pass(14_000);
  last().say({ type: 'pong' });
  time.pass(1_000);
  assert.equal(last().of('subscribe').length, 1, 'nothing is overdue');
  last().say({ type: 'rollover', as: 'sprint:current_season', from: null, to: 'sprint:season_summer' },
    told('sprint:season_summer', 'sprint:current_season'), snapshot('sprint:season_summer', 0));
  assert.ok(last().of('watch').length > 1);
  last().say({ type: 'rank', board: 'sprint:season_summer', user_id: 7, rank: 2 });
  assert.deepEqual(seen, [['snapshot', 'sprint:season_spring'], ['rollover', null], ['rollover', 'sprint:season_summer'], ['snapshot', 'sprint:season_summer']]);
  assert.deepEqual(ranks, [2]);
});

test('an alias that stands for nothing yet is asked for now and then, and its watches when it does', () => {
  const client = open();
  client.subscribe('sprint:current_season', () => {});
  client.watch('sprint:current_season', 7, () => {});
  const unknown = { type: 'error', code: 'unknown_board', message: '', board: 'sprint:current_season' };
  last().greet().say(unknown, unknown);
  time.pass(10_000);
  last().say({ type: 'pong' });
  assert.equal(last().of('subscribe').length, 1);
  for (let i = 0; i < 9; i += 1) { time.pass(5_000); last().say({ type: 'pong' }); }
  assert.equal(last().of('subscribe').length, 2);
  last().say(told('sprint:season_summer', 'sprint:current_season'), snapshot('sprint:season_summer', 0));
  assert.equal(last().of('watch').length, 2);
  last().say(told('sprint:season_summer', 'sprint:current_season'), snapshot('sprint:season_summer', 1));
  assert.equal(last().of('watch').length, 2, 'once');
});

test('a board of another leaderboard that is not there may be made yet, and is asked for now and then', () => {
  const codes = [];
  const client = open();
  client.subscribe('sprint:all_time', (board, { type, code }) => codes.push(code ?? type));
  last().greet().say({ type: 'error', code: 'unknown_board', message: 'The boards of sprint are being made.', board: 'sprint:all_time' });
  for (let i = 0; i < 11; i += 1) { time.pass(5_000); last().say({ type: 'pong' }); }
  assert.equal(last().of('subscribe').length, 2);
  last().say(told('sprint:all_time', 'sprint:all_time'), snapshot('sprint:all_time', 0));
  assert.deepEqual(codes, ['unknown_board', 'snapshot']);
});

test('ranks reach the watcher of an alias of any window that nobody subscribed to', () => {
  const ranks = [];
  const client = open();
  client.watch('sprint:current_day', 7, ({ board }) => ranks.push(board));
  last().greet();
  for (const board of ['day_of_2026_11_23', 'sprint:week_of_2026_11_23', 'marathon:day_of_2026_11_23', 'sprint:day_of_2026_11_23']) {
    last().say({ type: 'rank', board, user_id: 7, rank: 1 });
  }
  assert.deepEqual(ranks, ['sprint:day_of_2026_11_23']);
});

test('a submission names its leaderboard, its score, and what else was given', async () => {
  const client = open();
  last().greet();
  const outcome = client.submit({
    leaderboard: 'sprint', submission_id: 'r-9', score: 62345, metadata: { car: 'gt' }, board: 'sprint:current_day', with: 'all',
  });
  assert.deepEqual(last().of('submit'), [{
    type: 'submit', submission_id: 'r-9', leaderboard: 'sprint', score: 62345, metadata: { car: 'gt' }, board: 'sprint:current_day', with: 'all',
  }]);
  last().say({ type: 'accepted', submission_id: 'r-9', user_id: 7, duplicate: false, scores: { 'sprint:all_time': 61200 }, improved: false });
  assert.deepEqual((await outcome).scores, { 'sprint:all_time': 61200 });
});

test('the same id of two leaderboards is sent one after the other, for an answer does not say of which it is', async () => {
  const client = open();
  last().greet();
  const one = client.submit({ leaderboard: 'sprint', submission_id: 'a', score: 1 });
  const two = client.submit({ leaderboard: 'marathon', submission_id: 'a', score: 2 });
  assert.equal(last().of('submit').length, 1);
  last().say({ type: 'accepted', submission_id: 'a', scores: { 'sprint:all_time': 1 } });
  await one;
  await null;
  assert.equal(last().of('submit').at(-1).leaderboard, 'marathon');
  last().say({ type: 'accepted', submission_id: 'a', scores: { 'marathon:all_time': 2 } });
  assert.deepEqual((await two).scores, { 'marathon:all_time': 2 });
});

const settled = () => new Promise((done) => { setImmediate(done); });

test('whoever brings tokens is asked at each connect, and when one has ended', async () => {
  let count = 0;
  const client = open({ token: async () => `token-${count += 1}` });
  last().greet();
  await settled();
  assert.deepEqual(last().of('auth'), [{ type: 'auth', token: 'token-1' }]);
  last().say({ type: 'authenticated', user_id: 7 });
  assert.equal(await client.token(), 'token-1');
  client.subscribe('all_time', () => {});
  last().say(subscribed('all_time'), snapshot('all_time', 1), { type: 'unsubscribed', board: 'all_time', as: 'all_time' });
  last().say({ type: 'unsubscribed', board: 'all_time', as: 'all_time' });
  await settled();
  assert.deepEqual(last().of('auth').map(({ token }) => token), ['token-1', 'token-2'], 'once, however many boards ended');
  last().say({ type: 'authenticated', user_id: 7 });
  assert.equal(last().of('subscribe').length, 2, 'what had ended is asked for again');
  last().drop();
  time.pass(2_000);
  last().greet();
  await settled();
  assert.deepEqual(last().of('auth'), [{ type: 'auth', token: 'token-3' }]);
});

test('whoever fails to bring a token, or brings a wrong one, is asked again', async () => {
  const brought = [Promise.reject(new Error('away')), 'wrong', 'right'];
  open({ token: () => brought.shift() });
  last().greet();
  await settled();
  assert.deepEqual(last().of('auth'), []);
  time.pass(10_000);
  await settled();
  last().say({ type: 'error', code: 'unauthorized', message: 'No.' });
  time.pass(10_000);
  await settled();
  assert.deepEqual(last().of('auth').map(({ token }) => token), ['wrong', 'right']);
});
