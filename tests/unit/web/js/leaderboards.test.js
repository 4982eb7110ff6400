// Order, ranks and formats of any leaderboard, by the table that the Python side is held to as well.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { apply, described, ranks } from '../../../../web/js/model/board.js';
import { formatScore, parseScore } from '../../../../web/js/model/score-format.js';

const { orders, formats, messages } = JSON.parse(readFileSync(new URL('../../../fixtures/leaderboards.json', import.meta.url), 'utf8'));

for (const { name, leaderboard, entries, order, ranks: expected } of orders) {
  test(name, () => {
    const board = described({ board: 'x:all_time', epoch: 'x', version: 1, entries }, { leaderboard });
    assert.deepEqual(board.entries.map(({ user_id }) => user_id), order);
    for (const [style, found] of Object.entries(expected)) assert.deepEqual(ranks(board.entries, style), found, style);
    const again = described({ ...board, entries: [...board.entries].reverse() }, { leaderboard });
    assert.deepEqual(again.entries, board.entries, 'whatever order they come in');
  });
}

for (const { format, scores, typed, refused } of formats) {
  test(`scores as ${JSON.stringify(format)}`, () => {
    for (const [score, text] of scores) {
      assert.equal(formatScore(format, score), text);
      assert.equal(parseScore(format, text), score, `${text} reads back`);
    }
    for (const [text, score] of typed) assert.equal(parseScore(format, text), score, text);
    for (const text of refused) assert.equal(parseScore(format, text), null, JSON.stringify(text));
  });
}

for (const { name, description, start, message, entries, ranks: expected } of messages) {
  test(name, () => {
    const before = apply(null, start, description);
    const after = apply(before, message, description);
    assert.deepEqual(after, { board: start.board, epoch: start.epoch, version: message.version, entries, ...description });
    assert.deepEqual(ranks(after.entries, description.leaderboard.ranks), expected);
  });
}

test('every whole score of any format reads back as it was written', () => {
  let seed = 11;
  const roll = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 5_000; round += 1) {
    const score = (roll(2) ? 1 : -1) * Math.floor((roll(1 << 30) * (1 << 23) + roll(1 << 23)) / 10 ** roll(16)) || 0;
    for (const { format } of formats) assert.equal(parseScore(format, formatScore(format, score)), score, `${score} ${JSON.stringify(format)}`);
  }
});

test('a format of a kind from the future is read as a whole number', () => {
  for (const format of [undefined, {}, { kind: 'stars' }, { kind: 'constructor' }]) assert.equal(formatScore(format, -12), '-12');
});
