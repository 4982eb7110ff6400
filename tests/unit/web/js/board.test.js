// The reducer, by the fixtures that the Python side is held to as well, and by one law.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { apply, GAP, ranks } from '../../../../web/js/model/board.js';

const cases = JSON.parse(readFileSync(new URL('../../../fixtures/board_messages.json', import.meta.url), 'utf8'));

for (const { name, start, message, expect, ranks: expectedRanks } of cases) {
  test(name, () => {
    const before = JSON.stringify(start);
    const after = apply(start, message);
    assert.deepEqual(after, expect);
    assert.equal(JSON.stringify(start), before, 'the start is not changed in place');
    if (expectedRanks) assert.deepEqual(ranks(after.entries), expectedRanks);
  });
}

test('what changes nothing answers the very same board', () => {
  const board = { board: 'all_time', epoch: 'x', version: 5, entries: [] };
  assert.equal(apply(board, { type: 'rank', board: 'all_time' }), board);
  assert.equal(apply(board, { type: 'something_new' }), board);
});

test('diffs in any split lead to the same board as one snapshot', () => {
  let seed = 7;
  const roll = (n) => (seed = (seed * 48271) % 2147483647) % n;
  let board = apply(null, { type: 'snapshot', board: 'all_time', epoch: 'x', version: 0, entries: [] });
  const truth = new Map();
  for (let version = 1; version <= 500; version += 1) {
    const id = 1 + roll(40);
    const upsert = [];
    const remove = [];
    if (truth.has(id) && roll(5) === 0) { truth.delete(id); remove.push(id); } else {
      const score = roll(30);
      upsert.push(truth.has(id) ? { user_id: id, score } : { user_id: id, username: `n${id}`, score });
      truth.set(id, score);
    }
    board = apply(board, { type: 'diff', board: 'all_time', epoch: 'x', from: version - 1, version, upsert, remove });
    assert.notEqual(board, GAP);
    const expected = [...truth]
      .sort(([a, s], [b, t]) => t - s || (String(a) < String(b) ? 1 : -1))
      .map(([user_id, score]) => ({ user_id, username: `n${user_id}`, score }));
    assert.deepEqual(board.entries, expected);
  }
});
