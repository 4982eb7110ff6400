// What the scoreboard page shows, event by event: no page, no clock, no socket.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as model from '../../../../web/js/model/scoreboard-view.js';

const HOUR = 3_600_000;
const OLD = 'week_of_2026_01_05';
const NEW = 'week_of_2026_01_12';
const AT = Date.UTC(2026, 0, 7, 12); // Wednesday of the second week
const MONDAY = Date.UTC(2026, 0, 12);

const people = (...scores) => scores.map((score, index) => ({ user_id: index + 1, username: `Player ${index + 1}`, score }));
const held = (board, ...scores) => ({ board, epoch: 'x', version: 1, entries: people(...scores) });
const opened = (address = {}, more = {}) =>
  model.open({ board: 'current_week', me: null, ...address }, { signedIn: null, isBare: false, openedAt: 0, at: AT, ...more });

/** The view after events of {type, ...}; each carries the times of the one before where it has none. */
const after = (view, ...events) =>
  events.reduce((before, event) => model.next(before, { at: before.at, now: 0, ...event }), view);
const told = (standings, message = { type: 'snapshot' }) => ({ type: 'board', standings, message });

/** Nothing can change a view that was handed out. */
function frozen(value) {
  if (value && typeof value === 'object' && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(frozen);
  }
  return value;
}

test('no event changes the view it comes to, and an unknown one is refused', () => {
  const ann = { user_id: 1, username: 'Ann' };
  const events = [
    { type: 'clock', at: MONDAY }, { type: 'shown', board: OLD, me: 3 }, told(held(OLD, 5)), told(null, { type: 'unsubscribed' }),
    told(null, { type: 'rollover', from: OLD, to: NEW }), { type: 'rank', message: { rank: 1 } }, { type: 'result', player: ann, words: 'x' },
    { type: 'person', user: 2, board: OLD, here: null, username: 'Bo' }, { type: 'chosen', user: 1 }, { type: 'follow' }, { type: 'left' },
    { type: 'painted' },
  ];
  const view = frozen(after(opened({ me: 2 }), told(held(OLD, 9, 8)), { type: 'result', player: ann, words: 'y' }));
  for (const event of events) {
    const copy = structuredClone(view);
    after(view, frozen(event));
    assert.deepEqual(view, copy, event.type);
  }
  for (const type of ['nothing', 'toString', undefined]) assert.throws(() => after(view, { type }), TypeError);
});

test('whoever is signed in is followed where the address says nothing else', () => {
  const signedIn = { user_id: 7, username: 'Ann', token: 't' };
  const bare = opened({}, { signedIn, isBare: true });
  assert.deepEqual([bare.me, bare.followedName], [7, 'Ann']);
  assert.deepEqual([opened({}, { signedIn }).me, opened({ me: 3 }, { signedIn, isBare: true }).me], [null, 3]);
  assert.equal(opened({ me: 3 }, { signedIn }).followedName, null);
  assert.equal(opened({ me: 7 }, { signedIn }).followedName, 'Ann');
});

test('the frame says which board, and shows the clock for the running week alone', () => {
  const frame = (board, more = {}) => model.frameOf(opened({ board, ...more }));
  assert.deepEqual(frame('current_week'), { tab: 'week', hasClock: true, hasWeeks: false, hasSignIn: true, title: 'This week · Leaderboard' });
  assert.deepEqual(frame('all_time'), { tab: 'all', hasClock: false, hasWeeks: false, hasSignIn: true, title: 'All time · Leaderboard' });
  for (const week of ['week_of_2025_12_29', OLD]) assert.deepEqual([frame(week).tab, frame(week).hasWeeks, frame(week).hasClock], ['earlier', true, false]);
  assert.equal(frame('all_time', { me: 1 }).hasSignIn, false, 'who is followed has been chosen');
  const signedIn = opened({}, { signedIn: { user_id: 1 } });
  assert.equal(model.frameOf(signedIn).hasSignIn, false);
  assert.equal(model.frameOf(after(signedIn, { type: 'left' })).hasSignIn, true);
});

test('another board starts with nothing, the same one for somebody else keeps its rows', () => {
  const view = after(opened(), told(held(OLD, 5, 5, 3)), { type: 'painted' }, { type: 'rank', message: { rank: 1, score: 5 } },
    { type: 'result', words: 'Said' });
  assert.deepEqual([view.ranks, view.leader], [[1, 1, 3], 1]);
  const same = after(view, { type: 'shown', board: 'current_week', me: 2, now: 9 });
  assert.deepEqual([same.standings, same.rank, same.openedAt, same.result.words], [view.standings, null, 0, 'Said']);
  const other = after(view, { type: 'shown', board: 'all_time', me: null, now: 9 });
  assert.deepEqual([other.standings, other.ranks, other.rank, other.leader, other.openedAt, other.result.words], [null, [], null, null, 9, '']);
});

test('the name of who was followed goes with them, back and forward', () => {
  const signedIn = { user_id: 7, username: 'Ann', token: 't' };
  const view = after(opened({ me: 2 }, { signedIn }), { type: 'person', user: 2, board: 'current_week', here: null, username: 'Bo' });
  const shown = (me, board = 'current_week') => after(view, { type: 'shown', board, me, now: 9 }).followedName;
  assert.equal(view.followedName, 'Bo');
  assert.deepEqual([shown(3), shown(null), shown(7), shown(2), shown(2, 'all_time')], [null, null, 'Ann', 'Bo', 'Bo']);
  assert.equal(model.followedOf(after(view, told(held('x')), { type: 'shown', board: 'current_week', me: 3, now: 9 })).username, 'Player 3');
});

test('a week ends when the server\'s time says so, and a frame from before is known as such', () => {
  const view = opened({ board: OLD });
  assert.deepEqual([model.isClosed(view), model.isMisframed(view)], [false, false]);
  const later = after(view, { type: 'clock', at: MONDAY });
  assert.deepEqual([model.isClosed(later), model.isMisframed(later)], [true, true]);
  assert.equal(model.isMisframed(after(later, { type: 'shown', board: OLD, me: null })), false);
  assert.equal(model.isClosed(after(opened(), { type: 'clock', at: MONDAY })), false, 'an alias never closes');
});

test('the clock counts down, waits for the server at zero, and says for a minute what ended', () => {
  const view = after(opened(), told(held(OLD, 5)));
  const at = (time, from = view) => model.countdownOf(after(from, { type: 'clock', at: time }));
  assert.deepEqual(at(MONDAY - 26 * HOUR), { label: 'Week 2 ends in', isLastHour: false, isOver: false, left: { d: 1, h: 2, m: 0, s: 0 } });
  assert.deepEqual([at(MONDAY - HOUR).isLastHour, at(MONDAY - HOUR - 1).isLastHour], [true, false]);
  assert.deepEqual(at(MONDAY), { label: 'Week 2 is closing', isLastHour: false, isOver: true, left: { d: 0, h: 0, m: 0, s: 0 } });
  assert.equal(at(MONDAY + HOUR).label, 'Week 2 is closing', 'however long that takes');
  const rolled = after(view, { type: 'clock', at: MONDAY }, told(null, { type: 'rollover', from: OLD, to: NEW }), told(held(NEW)));
  assert.equal(at(MONDAY + 59_999, rolled).label, 'Week 2 is final. Week 3 has started.');
  assert.equal(at(MONDAY + 60_000, rolled).label, 'Week 3 ends in');
  assert.equal(at(MONDAY + 59_999, rolled).isOver, false);
});

test('a board without rows says why', () => {
  const empty = (view) => model.emptyOf(view)?.title ?? null;
  assert.equal(empty(opened()), null, 'nothing is known yet');
  assert.equal(empty(after(opened(), told(held(OLD, 1)))), null);
  const first = 'The first score takes rank 1.';
  assert.deepEqual(model.emptyOf(after(opened({ board: 'all_time' }), told(held('all_time')))), { title: 'No scores yet', text: first });
  assert.deepEqual(model.emptyOf(after(opened(), told(held(OLD)))), { title: 'No scores in week 2 yet', text: first });
  assert.equal(empty(after(opened(), { type: 'clock', at: MONDAY + HOUR }, told(held(NEW)))), 'Week 3 has just started');
  assert.deepEqual(model.emptyOf(after(opened({ board: 'week_of_2025_12_29' }), told(held('week_of_2025_12_29')))),
    { title: 'Nobody scored in this week', text: '' });
});

test('a refused board says why, and one that may no longer be seen is gone', () => {
  const view = after(opened(), told(held(OLD, 1)));
  const refused = (code, message) => model.emptyOf(after(opened(), told(null, { type: 'error', code, message })));
  assert.deepEqual(refused('unknown_board', 'There is no such board.'), { title: 'There is nothing to show here', text: 'There is no such board.' });
  assert.equal(refused('unknown_board').text, 'unknown_board');
  assert.equal(refused('unauthorized', 'x').text, 'This board is private. Sign in to see it.');
  assert.equal(refused('forbidden', 'Not for you.').text, 'Not for you.');
  for (const message of [{ type: 'unsubscribed' }, { type: 'error', code: 'expired' }]) {
    const gone = after(view, { ...told(view.standings, message), now: 5 });
    assert.deepEqual([gone.standings, gone.ranks, gone.openedAt], [null, [], 5], message.type);
    assert.equal(model.emptyOf(after(gone, told(view.standings))), null, 'until it is told again');
  }
  const busy = after(view, told(view.standings, { type: 'error', code: 'overloaded', message: 'Busy.' }));
  assert.deepEqual([busy.standings, model.emptyOf(busy)], [view.standings, null], 'what passes takes nothing away');
});

test('the lamp of a closed week says that it is final, as long as there is a connection', () => {
  const line = (view, state = 'live', heardAt = 0, now = 0) =>
    model.lineOf(view, { state, stale: false, retryAt: null, heardAt, now: () => now }, now);
  const running = after(opened(), told(held(OLD, 1)));
  const closed = after(opened({ board: OLD }, { at: MONDAY }), told(held(OLD, 1)));
  assert.deepEqual(line(running), { lamp: 'Live', isOn: true, note: '', isOld: false });
  assert.deepEqual(line(closed), { lamp: 'Final', isOn: false, note: '', isOld: false });
  assert.equal(line(closed, 'reconnecting', 0, 5_000).lamp, 'Reconnecting');
  assert.equal(line(running, 'reconnecting', 0, 30_000).isOld, true);
  const refused = after(opened({ board: OLD }, { at: MONDAY }), told(null, { type: 'error', code: 'unknown_board' }));
  assert.deepEqual([line(refused).lamp, line(refused, 'live', 0, 5_000).note], ['Live', ''], 'nothing more is awaited');
  assert.equal(line(opened(), 'live', 0, 5_000).note, 'Getting the scores');
});

test('what the lamp says is said aloud once there is a board', () => {
  const view = after(opened(), told(held(OLD, 1)));
  assert.deepEqual(['Live', 'Final', 'Offline'].map((lamp) => model.lampWords(view, 'Reconnecting', lamp)), ['Connected', 'Connected', 'Offline']);
  assert.equal(model.lampWords(view, 'Connecting', 'Live'), '');
  assert.equal(model.lampWords(opened(), 'Reconnecting', 'Live'), '');
});

test('a new leader is said, but not the first one, nor one of another board', () => {
  const view = after(opened(), told(held(OLD, 5, 4)));
  assert.equal(model.leaderWords(view), '');
  const [ann, bo] = people(5, 6);
  const overtaken = after(view, { type: 'painted' }, told({ ...held(OLD), entries: [bo, ann] }));
  assert.equal(model.leaderWords(overtaken), 'Player 2 leads with 6 points');
  assert.equal(model.leaderWords(after(overtaken, { type: 'painted' })), '');
  assert.equal(model.leaderWords(after(overtaken, { type: 'shown', board: 'all_time', me: null }, told(held('all_time', 1)))), '');
  const emptied = after(overtaken, told(held(OLD)), { type: 'painted' });
  assert.deepEqual([model.leaderWords(emptied), emptied.leader], ['', 1], 'nobody leads an empty board');
});

test('the one who is followed stands on the board, below it, or nowhere', () => {
  const view = after(opened({ me: 2 }), told(held(OLD, 9, 4)));
  assert.deepEqual(model.followedOf(view), { rank: 2, username: 'Player 2', score: 4, far: '5 points to rank 1' });
  assert.equal(model.followedOf(opened({ me: 2 })), null, 'nothing is known yet');
  assert.equal(model.followedOf(after(opened(), told(held(OLD, 9)))), null, 'nobody is followed');
  const outside = after(opened({ me: 7 }), told(held(OLD, 9)));
  assert.deepEqual(model.followedOf(outside), { rank: null, username: 'Player 7', score: null, far: 'No score on this board yet' });
  const known = after(outside, { type: 'person', user: 7, board: 'current_week', here: { rank: 8 }, username: 'Ann' });
  assert.equal(known.rank, null, 'the rank of a running board comes from the watch');
  const far = (message) => model.followedOf(after(known, { type: 'rank', message }));
  assert.deepEqual(far({ rank: 120, score: 3, to_next: 1 }), { rank: 120, username: 'Ann', score: 3, far: '1 point to the next rank' });
  assert.equal(far({ rank: 120, score: 3, to_next: null }).far, 'Outside the top 100');
  assert.equal(far({ rank: null, score: null, to_next: null }).far, 'No score on this board yet');
  assert.equal(model.followedOf(after(known, { type: 'rank', message: { rank: 9 } }, told(null, { type: 'rollover', from: OLD, to: NEW }), told(held(NEW)))).rank,
    null, 'a rank of last week is none of this one');
});

test('in a closed week the one who is followed has a final rank', () => {
  const week = 'week_of_2025_12_29';
  const view = after(opened({ board: week, me: 2 }), told(held(week, 9, 4)));
  assert.equal(model.followedOf(view).far, 'Your final rank in week 1');
  const outside = after(opened({ board: week, me: 7 }), told(held(week, 9)));
  assert.equal(model.followedOf(outside).far, 'No score in this week');
  const here = { rank: 300, score: 1, username: 'Ann' };
  const answered = after(outside, { type: 'person', user: 7, board: week, here, username: 'Ann' });
  assert.deepEqual(model.followedOf(answered), { rank: 300, username: 'Ann', score: 1, far: 'Your final rank in week 1' });
  for (const late of [{ user: 8, board: week }, { user: 7, board: OLD }]) {
    assert.equal(after(outside, { type: 'person', here, username: 'Ann', ...late }).rank, null, 'an answer about something else');
  }
});

test('who is found can be followed, and no longer', () => {
  const board = after(opened(), told(held(OLD, 9, 4)));
  assert.deepEqual(after(board, { type: 'chosen', user: 3 }), board, 'who is not there cannot be chosen');
  const found = after(board, { type: 'chosen', user: 2 });
  assert.deepEqual(model.resultOf(found), { words: 'Player 2 is rank 2 with 4 points.', canFollow: true, action: 'Follow' });
  const followed = after(found, { type: 'follow' });
  assert.deepEqual([followed.me, followed.followedName], [2, 'Player 2']);
  assert.deepEqual(model.resultOf(followed), { words: 'You follow Player 2.', canFollow: false, action: 'Follow' });
  assert.deepEqual(after(followed, { type: 'follow' }).me, 2, 'the line is about nobody any more');
  const again = after(followed, { type: 'chosen', user: 2 });
  assert.equal(model.resultOf(again).action, 'Stop following');
  const stopped = after(again, { type: 'rank', message: { rank: 2 } }, { type: 'follow' });
  assert.deepEqual([stopped.me, stopped.followedName, stopped.rank], [null, null, null]);
  assert.equal(model.resultOf(stopped).words, 'You no longer follow Player 2.');
  assert.equal(after(stopped, { type: 'result' }).result.words, '');
});

test('one\'s own rank is said where there is one', () => {
  assert.equal(model.rankWords(opened()), '');
  assert.equal(model.rankWords(after(opened(), { type: 'rank', message: { rank: null, score: null } })), '');
  assert.equal(model.rankWords(after(opened(), { type: 'rank', message: { rank: 3, score: 1 } })), 'You are rank 3 with 1 point');
});
