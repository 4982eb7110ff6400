// The pure pieces of the pages: when to paint, what the marks say, which rows stay, and every sentence.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { Repaint } from '../../../../web/js/view/repaint.js';
import { now } from '../../../../web/js/model/clock.js';
import { match } from '../../../../web/js/model/player-match.js';
import { describe as describeLine } from '../../../../web/js/model/connection-status.js';
import { Movements } from '../../../../web/js/model/movements.js';
import { stayers } from '../../../../web/js/model/reorder.js';
import { defaultTop, readOptions, size, writeOptions } from '../../../../web/js/model/overlay-options.js';
import * as words from '../../../../web/js/model/format.js';

// ---- repaint

class Frames {
  clock = 0; waiting = [];
  now = () => this.clock;
  set = (call, ms) => this.waiting.push([this.clock + ms, call]);
  frame = (call) => this.waiting.push([this.clock + 16, call]);
  pass(ms) {
    const end = this.clock + ms;
    for (;;) {
      this.waiting.sort((a, b) => a[0] - b[0]);
      if (!this.waiting.length || this.waiting[0][0] > end) break;
      const [at, call] = this.waiting.shift();
      this.clock = at;
      call();
    }
    this.clock = end;
  }
}

test('after a quiet time a change is painted in the next frame, then once a beat', () => {
  const frames = new Frames();
  const paints = [];
  const repaint = new Repaint(() => { paints.push(frames.clock); return 1; }, frames);
  for (let i = 0; i < 100; i += 1) { repaint.ask(); frames.pass(10); }
  assert.equal(paints[0], 16);
  assert.ok(paints.length >= 4 && paints.length <= 5, String(paints));
  for (let i = 1; i < paints.length; i += 1) assert.ok(paints[i] - paints[i - 1] >= 250);
});

test('a flood of moves slows the beat to a second', () => {
  const frames = new Frames();
  const paints = [];
  const repaint = new Repaint(() => { paints.push(frames.clock); return 13; }, frames);
  for (let i = 0; i < 300; i += 1) { repaint.ask(); frames.pass(10); }
  assert.equal(paints.length, 3);
});

test('a paint of nothing uses up no beat, and the first board is painted in the same turn', () => {
  const frames = new Frames();
  const paints = [];
  let known = false;
  const repaint = new Repaint(() => { paints.push([frames.clock, known]); return known ? 0 : null; }, frames);
  repaint.ask();
  frames.pass(20);
  known = true;
  repaint.now();
  repaint.ask();
  frames.pass(300);
  assert.deepEqual(paints, [[16, false], [20, true], [286, true]]);
  repaint.hide(true);
  repaint.now();
  assert.equal(paints.length, 3, 'not while nobody sees it');
});

test('hidden it never paints; seen again it paints once, still', () => {
  const frames = new Frames();
  const paints = [];
  const repaint = new Repaint((still) => { paints.push(still); }, frames);
  repaint.hide(true);
  for (let i = 0; i < 50; i += 1) { repaint.ask(); frames.pass(50); }
  assert.deepEqual(paints, []);
  repaint.hide(false);
  frames.pass(1000);
  assert.deepEqual(paints, [true]);
  repaint.ask();
  frames.pass(1000);
  assert.deepEqual(paints, [true, false]);
});

test('hidden between asking and the frame, it does not paint', () => {
  const frames = new Frames();
  let paints = 0;
  const repaint = new Repaint(() => { paints += 1; }, frames);
  repaint.ask();
  repaint.hide(true);
  frames.pass(1000);
  assert.equal(paints, 0);
});

// ---- movements

const ranksOf = (...pairs) => new Map(pairs);

test('a mark is the net movement since the first move, and goes a minute after the last', () => {
  const movements = new Movements();
  movements.note(ranksOf([1, 1], [2, 2], [3, 3]), 0);
  assert.deepEqual([...movements.note(ranksOf([3, 1], [1, 2], [2, 3]), 1000)].sort(), [[1, -1], [2, -1], [3, 2]]);
  assert.equal(movements.note(ranksOf([1, 1], [3, 2], [2, 3]), 30_000).get(3), 1);
  assert.equal(movements.marks(59_000).get(1), undefined, 'back where it began: nothing to say');
  assert.equal(movements.marks(60_999).get(2), -1);
  assert.equal(movements.marks(61_000).get(2), undefined);
  assert.equal(movements.marks(89_999).get(3), 1);
  assert.equal(movements.marks(90_000).size, 0);
});

test('the first board marks nobody, newcomers are new, and another board starts over', () => {
  const movements = new Movements();
  assert.equal(movements.note(ranksOf([1, 1]), 0).size, 0);
  assert.equal(movements.note(ranksOf([1, 1], [2, 2]), 1).get(2), 'new');
  assert.equal(movements.note(ranksOf([2, 1], [1, 2]), 2).get(2), 'new', 'new it stays, wherever it goes');
  movements.forget();
  assert.equal(movements.note(ranksOf([9, 1]), 3).size, 0);
});

// ---- order

test('as many rows as can stay do stay, and those are in order', () => {
  const brute = (places) => {
    let best = 0;
    for (let mask = 0; mask < 2 ** places.length; mask += 1) {
      const run = places.filter((place, at) => (mask >> at) & 1);
      if (run.every((place, at) => place >= 0 && (at === 0 || run[at - 1] < place))) best = Math.max(best, run.length);
    }
    return best;
  };
  let seed = 3;
  const roll = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 300; round += 1) {
    const length = roll(9);
    const places = Array.from({ length }, (_, at) => at).sort(() => roll(3) - 1).map((at) => (roll(6) ? at : -1));
    const stay = [...stayers(places)].sort((a, b) => a - b);
    assert.ok(stay.every((at, i) => places[at] >= 0 && (i === 0 || places[stay[i - 1]] < places[at])), String(places));
    assert.equal(stay.length, brute(places), String(places));
  }
});

// ---- words

test('weeks are numbered as ISO 8601 does, also around a new year', () => {
  for (const [board, number] of [['week_of_2026_11_23', 48], ['week_of_2020_12_28', 53], ['week_of_2021_01_04', 1], ['week_of_2024_12_30', 1]]) {
    assert.equal(words.weekNumber(words.weekStart(board)), number, board);
  }
  for (const [board, name] of [['week_of_2024_01_01', 'Week 1, 2024'], ['week_of_2024_12_23', 'Week 52, 2024'], ['week_of_2025_01_06', 'Week 2, 2025'],
    ['week_of_2025_12_29', 'Week 1, 2026'], ['week_of_2020_12_28', 'Week 53, 2020'], ['week_of_2018_12_31', 'Week 1, 2019']]) {
    assert.equal(words.weekNameInFull(words.weekStart(board)), name);
  }
  assert.equal(words.weekStart('all_time'), null);
  assert.equal(words.weekAt(Date.UTC(2026, 10, 29, 23, 59, 59, 999)), Date.UTC(2026, 10, 23));
  assert.equal(words.weekAt(Date.UTC(2026, 10, 30)), Date.UTC(2026, 10, 30));
});

test('what remains of a week counts down to nothing and not below', () => {
  assert.deepEqual(words.remaining(((2 * 24 + 3) * 3600 + 4 * 60 + 5) * 1000), { d: 2, h: 3, m: 4, s: 5 });
  assert.deepEqual(words.remaining(1), { d: 0, h: 0, m: 0, s: 1 });
  assert.deepEqual(words.remaining(-5000), { d: 0, h: 0, m: 0, s: 0 });
});

test('the distance to the next rank, the lead, and a shared lead', () => {
  const entries = [50, 40, 40, 10].map((score, at) => ({ user_id: at, score }));
  const ranks = [1, 2, 2, 4];
  assert.deepEqual(entries.map((_, at) => words.distance(entries, ranks, at)),
    ['You lead by 10 points', '10 points to rank 1', '10 points to rank 1', '30 points to rank 2']);
  const tied = [{ score: 5 }, { score: 5 }];
  assert.equal(words.distance(tied, [1, 1], 1), 'You share the lead');
  assert.equal(words.distance([{ score: 5 }], [1], 0), 'You lead');
});

// ---- line

test('the line in words, from the first moment to half a minute of silence', () => {
  const at = (state, now, { hasBoard = true, ...more } = {}) =>
    describeLine({ state, stale: false, retryAt: null, heardAt: 0, now: () => now, ...more }, { openedAt: 0, hasBoard }, now);
  assert.deepEqual([at('connecting', 300, { hasBoard: false }).note, at('connecting', 500, { hasBoard: false }).note], ['', 'Getting the scores']);
  assert.equal(at('connecting', 31_000, { hasBoard: false, retryAt: 35_000 }).note, 'The server does not answer. Trying again in 4 s.');
  assert.deepEqual(at('live', 0), { lamp: 'Live', on: true, note: '', old: false });
  assert.equal(at('reconnecting', 500).note, '', 'a blink is not worth a sentence');
  assert.match(at('reconnecting', 5_000, { retryAt: 9_000 }).note, /^Connection lost\. These are the scores from .+\. Trying again in 4 s\.$/);
  const given = at('reconnecting', 30_000);
  assert.deepEqual([given.lamp, given.old], ['Offline', true]);
  assert.match(given.note, /^No connection since .+\. The scores below are from then\.$/);
  assert.equal(at('live', 0, { stale: true }).lamp, 'Paused');
});

test('when the server was last heard is said by its own clock', () => {
  const hour = 3_600_000;
  const line = (ahead) => describeLine({ state: 'reconnecting', retryAt: null, heardAt: 0, now: () => 40_000 + ahead }, { hasBoard: true }, 40_000);
  assert.ok(line(0).note.includes(words.shortTime(0)));
  assert.ok(line(5 * hour).note.includes(words.shortTime(5 * hour)));
});

// ---- time

test('nothing asks the clock that can be set, but the one module that counts on from it', () => {
  const folder = new URL('../../../../web/js/', import.meta.url);
  for (const name of readdirSync(folder, { recursive: true }).filter((file) => file.endsWith('.js') && file !== 'model/clock.js')) {
    assert.doesNotMatch(readFileSync(new URL(name, folder), 'utf8'), /Date\.now|new Date\(\)|performance\.timeOrigin/, name);
  }
});

test('the page\'s clock goes on evenly when the device\'s is set, and serves where there is no other', async () => {
  const [device, counter] = [Date.now, globalThis.performance];
  try {
    const before = now();
    Date.now = () => device() + 86_400_000;
    assert.ok(now() - before < 60_000);
    Object.defineProperty(globalThis, 'performance', { value: undefined, configurable: true, writable: true });
    const alone = await import('../../../../web/js/model/clock.js?alone');
    assert.ok(Math.abs(alone.now() - Date.now()) < 60_000);
  } finally {
    Date.now = device;
    globalThis.performance = counter;
  }
});

// ---- find

const named = (...names) => names.map((username, at) => ({ user_id: at, username }));

test('a player is found however the name is typed, whatever the viewer\'s language', () => {
  for (const [name, ...typed] of [
    ['İstanbul', 'istanbul', 'ISTANBUL', 'İSTANBUL', 'ıstanbul'],
    ['Isparta', 'ısparta', 'ISPARTA', 'isparta'],
    ['IŞIK', 'ışık', 'isik'],
    ['Straße', 'strasse', 'STRASSE', 'STRAẞE', 'straß'],
    ['STRASSE', 'straße', 'ẞ'],
    ['ΟΔΥΣΣΕΥΣ', 'οδυσσευς', 'οδυσσεύς', 'οδυσ'],
    ['ﬁlm', 'FILM', 'film'],
    ['Ａｌｉｃｅ', 'alice'],
    ['Amélie', 'amelie', 'AME\u0301LIE'],
    ['Нüɴя'.normalize('NFD'), 'нü'],
    ['zero\u200bwidth', 'zerowidth'],
  ]) for (const words of typed) assert.equal(match(named('Somebody', name), words), 1, `${words} for ${name}`);
  for (const words of ['', '  ', '\u200b']) assert.equal(match(named('Any'), words), -1, JSON.stringify(words));
});

test('of names that differ in marks alone, the one that was typed is found', () => {
  assert.equal(match(named('रम', 'राम'), 'राम'), 1);
  assert.equal(match(named('はは', 'ばば'), 'ばば'), 1);
  assert.equal(match(named('Jose', 'José'), 'josé'), 1);
  assert.equal(match(named('Josephine', 'José'), 'jose'), 1, 'a whole name without its marks before the beginning of another');
});

test('every letter is found by its capital, its small letter and its other forms', () => {
  const wrong = [];
  for (let code = 0x21; code < 0x1_1000; code += 1) {
    if (code >= 0xd800 && code <= 0xf8ff) continue;
    const letter = `x${String.fromCodePoint(code)}y`;
    for (const form of [letter.toLowerCase(), letter.toUpperCase(), letter.normalize('NFD'), letter.normalize('NFKC')]) {
      if (match(named(letter), form) !== 0) wrong.push(form);
    }
  }
  assert.deepEqual(wrong, []);
});

// ---- overlay options

test('options read back as they were written, in the shortest words', () => {
  assert.equal(writeOptions(readOptions('')), '');
  for (const query of ['board=all_time&top=3', 'shape=strip&top=10', 'title=', 'theme=paper&scale=1.25&clock=0&motion=0&status=1&user=7&title=Cup']) {
    assert.deepEqual(readOptions(writeOptions(readOptions(query))), readOptions(query), query);
    assert.equal(writeOptions(readOptions(query)).length, query.length, query);
  }
});

test('a title is cut by characters, not in the middle of one', () => {
  const title = '🏆'.repeat(30);
  assert.equal([...readOptions(`title=${title}`).title].length, 24);
  assert.ok(readOptions(`title=${title}`).title.isWellFormed?.() ?? true);
});

test('the size for OBS: ten rows are exactly 600', () => {
  assert.deepEqual(size(readOptions('')), { width: 400, height: 600 });
  assert.deepEqual(size(readOptions('title=&top=3')), { width: 400, height: 174 });
  assert.deepEqual(size(readOptions('scale=2&top=1')), { width: 800, height: 228 });
  assert.deepEqual(size(readOptions('shape=strip')), { width: 1672, height: 88 });
  assert.equal(size(readOptions('shape=strip&top=8')).width, 2536);
  assert.equal(size(readOptions('shape=strip&top=3')).width, 1280);
  assert.deepEqual(['user=7', 'user=Kim%20Lee', 'user=', 'user=%20'].map((query) => readOptions(query).user), [7, 'Kim Lee', null, null]);
  assert.equal(defaultTop('strip'), 5);
});
