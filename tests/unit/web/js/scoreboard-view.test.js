// What the scoreboard page shows, event by event: no page, no clock, no socket.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { dayIn, dayName } from '../../../../web/js/model/format.js';
import { readLeaderboard, readList } from '../../../../web/js/model/leaderboards.js';
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
  const tabs = [['tab-week', 'This week', 'current_week'], ['tab-all', 'All time', 'all_time'], ['tab-earlier', 'Earlier', null]];
  const alone = { slug: 'default', leaderboards: [], heading: 'Leaderboard', hasWeeks: false, hasSignIn: true };
  const { tabs: found, ...week } = frame('current_week');
  assert.deepEqual(found.map(({ id, words, board }) => [id, words, board]), tabs);
  assert.deepEqual(week, { ...alone, tab: 'tab-week', hasClock: true, title: 'This week · Leaderboard' });
  assert.deepEqual(frame('all_time'), { ...alone, tabs: found, tab: 'tab-all', hasClock: false, title: 'All time · Leaderboard' });
  for (const week of ['week_of_2025_12_29', OLD]) assert.deepEqual([frame(week).tab, frame(week).hasWeeks, frame(week).hasClock], ['tab-earlier', true, false]);
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
  assert.deepEqual([line(refused).lamp, line(refused, 'live', 0, 5_000).note], ['Nothing to show', ''], 'nothing more is awaited');
  const barred = after(opened(), told(null, { type: 'error', code: 'unauthorized' }));
  assert.deepEqual(line(barred), { lamp: 'Private', isOn: false, note: '', isOld: false });
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

// ---- any leaderboard

const SPRINT = { slug: 'sprint', title: 'Sprint, any %', order: 'ascending', ties: 'first', ranks: 'dense', format: { kind: 'duration', unit: 'ms' } };
const LISTED = readList({
  leaderboards: [
    { slug: 'default', definition: { title: 'Points', windows: ['all_time', 'week'] }, state: 'live', progress: 1 },
    { slug: 'sprint', definition: { ...SPRINT, slug: undefined, operator: 'best', windows: ['all_time', 'day', 'season'], zone: 'Europe/Berlin',
      seasons: [{ id: 'spring_26', starts: '2026-03-01T00:00:00+01:00', ends: '2026-06-01T00:00:00+02:00' }] }, state: 'live', progress: 1 },
  ],
});
const listed = { type: 'leaderboards', leaderboards: LISTED };
const TODAY = 'sprint:day_of_2026_01_07';
const TOMORROW = Date.UTC(2026, 0, 7, 23); // in Berlin
const window = { kind: 'day', starts: '2026-01-06T23:00:00.000Z', ends: '2026-01-07T23:00:00.000Z' };
const lap = (board, ...scores) => ({ ...held(board, ...scores), leaderboard: SPRINT, window });
const [day, next] = [Date.UTC(2026, 0, 7), Date.UTC(2026, 0, 8)].map(dayName); // as this machine's language has it
const sprint = (...events) => after(opened({ board: 'sprint:current_day' }), listed, ...events);

test('a leaderboard among others has its own tabs, heading and title, and they can be chosen from', () => {
  const frame = model.frameOf(sprint());
  assert.deepEqual(frame.leaderboards, [{ slug: 'default', title: 'Points' }, { slug: 'sprint', title: 'Sprint, any %' }]);
  assert.deepEqual(frame.tabs.map(({ words, board }) => [words, board]),
    [['Today', 'sprint:current_day'], ['This season', 'sprint:current_season'], ['All time', 'sprint:all_time'], ['Earlier', null]]);
  assert.deepEqual([frame.tab, frame.slug, frame.heading, frame.title], ['tab-day', 'sprint', 'Sprint, any %', 'Today · Sprint, any %']);
  assert.deepEqual(model.frameOf(opened({ board: 'sprint:current_day' })).tabs, [], 'nothing is known of it before');
  assert.equal(model.frameOf(after(opened({ board: 'sprint:current_day' }), told(lap(TODAY)))).heading, 'Sprint, any %', 'but what the board says');
  assert.deepEqual(model.frameOf(after(opened(), { type: 'leaderboards', leaderboards: readList(null) })).leaderboards, [], 'one alone is no choice');
});

test('ranks, scores and gaps are as the leaderboard has them, the smaller one better', () => {
  const view = after(sprint({ type: 'shown', board: 'sprint:current_day', me: 3 }, told(lap(TODAY, 61_000, 62_345, 62_345, 150_000))), { type: 'painted' });
  assert.deepEqual(view.ranks, [1, 2, 2, 3]);
  assert.deepEqual(model.followedOf(view), { rank: 2, username: 'Player 3', score: 62_345, far: '1.345 s to rank 1' });
  assert.equal(model.followedOf({ ...view, me: 1 }).far, 'You lead by 1.345 s');
  assert.equal(model.followedOf({ ...view, me: 4 }).far, '1:27.655 to rank 2');
  assert.equal(model.resultOf(after(view, { type: 'chosen', user: 2 })).words, 'Player 2 is rank 2 with 1:02.345.');
  const outside = after(view, { type: 'shown', board: 'sprint:current_day', me: 9 }, { type: 'rank', message: { rank: 312, score: 200_000, to_next: 80 } });
  assert.equal(model.followedOf(outside).far, '0.080 s to the next rank');
  assert.equal(model.rankWords(outside), 'You are rank 312 with 3:20.000');
  assert.equal(model.leaderWords({ ...view, leader: 2 }), 'Player 1 leads with 1:01.000');
});

test('a day counts down to its own end and is final after it', () => {
  const view = sprint(told(lap(TODAY, 61_000)));
  assert.deepEqual(model.countdownOf(view), { label: `${day} ends in`, isLastHour: false, isOver: false, left: { d: 0, h: 11, m: 0, s: 0 } });
  const rolled = after(view, { type: 'clock', at: TOMORROW }, told(null, { type: 'rollover', from: TODAY, to: 'sprint:day_of_2026_01_08' }));
  assert.equal(model.countdownOf(rolled).label, `${day} is final. ${next} has started.`);
  assert.deepEqual([model.countdownOf(sprint()).label, model.countdownOf(sprint()).isOver], ['', true], 'until when it runs is not known yet');
  const byId = after(opened({ board: TODAY }), listed, told(lap(TODAY, 61_000)));
  assert.deepEqual([model.isClosed(byId), model.isClosed(after(byId, { type: 'clock', at: TOMORROW }))], [false, true]);
  assert.equal(model.isMisframed(after(opened({ board: TODAY }, { at: TOMORROW }), told(lap(TODAY, 61_000)))), true, 'only the board said when it ends');
});

test('a board without rows says of which window', () => {
  const empty = (view) => { const words = model.emptyOf(view); return words && `${words.title}. ${words.text}`; };
  const first = 'The first score takes rank 1.';
  assert.equal(empty(sprint(told(lap(TODAY)))), `No scores on ${day} yet. ${first}`);
  assert.equal(empty(sprint({ type: 'clock', at: TOMORROW - 23 * HOUR }, told(lap(TODAY)))), `${day} has just started. ${first}`);
  assert.equal(empty(after(opened({ board: TODAY }, { at: TOMORROW }), told(lap(TODAY)))), 'Nobody scored on this day. ');
});

test('where no season runs it says when the next one begins', () => {
  const board = 'sprint:current_season';
  const begins = `Season spring 26 begins on ${dayIn('Europe/Berlin', Date.UTC(2026, 1, 28, 23))}.`;
  const unknown = told(null, { type: 'error', code: 'unknown_board', message: 'There is no such board.' });
  assert.deepEqual(model.emptyOf(after(opened({ board }), listed, unknown)), { title: 'No season is running', text: begins });
  assert.equal(model.emptyOf(after(opened({ board }), unknown)).text, 'The next season has not begun.', 'as far as is known');
  const over = after(opened({ board }), listed, told(null, { type: 'rollover', from: 'sprint:season_winter_25', to: null }));
  assert.deepEqual(model.emptyOf(over), { title: 'Season winter 25 is over', text: begins });
  assert.equal(model.countdownOf(over).label, 'Season winter 25 is final. The next season has not begun.');
  const begun = after(over, told(null, { type: 'rollover', from: null, to: 'sprint:season_spring_26' }));
  assert.deepEqual([model.emptyOf(begun), model.countdownOf(begun).label], [null, 'Season spring 26 has started.']);
});

test('standings that are being made say how far they are, and old ones that they are old', () => {
  const building = { type: 'leaderboards', leaderboards: [readLeaderboard({ slug: 'sprint', definition: SPRINT, state: 'building', progress: 0.429 })] };
  const counted = 'Every score on record is being counted: 42 %.';
  const refused = after(sprint(), building, told(null, { type: 'error', code: 'unavailable', message: 'Later.' }));
  assert.deepEqual(model.emptyOf(refused), { title: 'These standings are being made', text: counted });
  assert.equal(model.emptyOf(after(sprint(), building, told(lap(TODAY)))).text, counted);
  const changed = after(sprint(), building, told(lap(TODAY, 61_000)));
  const line = (view) => model.lineOf(view, { state: 'live', stale: false, retryAt: null, heardAt: 0, now: () => 0 }, 0).note;
  assert.match(line(changed), /^The rules have changed\. .* 42 %\.$/);
  assert.equal(line(after(changed, listed)), '');
});
