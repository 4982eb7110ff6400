// What ids say, how windows and leaderboards are called, and how a score is handed in: pure, whatever the viewer's language.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as format from '../../../../web/js/model/format.js';
import { boardLike, boardName, DEFAULT, isOpen, nextSeason, readList, tabsOf, titleOf } from '../../../../web/js/model/leaderboards.js';
import { entryOf, readEntry } from '../../../../web/js/model/score-entry.js';
import { boundsOf, inWindow, parse, windowDays, windowName, within, yearOf } from '../../../../web/js/model/windows.js';

const DAY = 86_400_000;
const first = (...parts) => Date.UTC(...parts);

test('an id says whose board it is, which window, and from which day on', () => {
  const said = (id) => { const { slug, kind, which, first: day, season } = parse(id); return [slug, kind, which, day, season]; };
  assert.deepEqual(said('all_time'), ['default', 'all_time', null, null, null]);
  assert.deepEqual(said('current_week'), ['default', 'week', 'current', null, null]);
  assert.deepEqual(said('week_of_2026_11_30'), ['default', 'week', null, first(2026, 10, 30), null]);
  assert.deepEqual(said('sprint:previous_month'), ['sprint', 'month', 'previous', null, null]);
  assert.deepEqual(said('a-b2:day_of_2026_01_31'), ['a-b2', 'day', null, first(2026, 0, 31), null]);
  assert.deepEqual(said('sprint:month_of_2026_11'), ['sprint', 'month', null, first(2026, 10, 1), null]);
  assert.deepEqual(said('sprint:year_of_2026'), ['sprint', 'year', null, first(2026, 0, 1), null]);
  assert.deepEqual(said('sprint:season_spring_26'), ['sprint', 'season', null, null, 'spring_26']);
  for (const none of ['', 'week', 'Sprint:all_time', 'sprint:', 'sprint:all_times', undefined]) assert.equal(parse(none).kind, null, String(none));
});

test('windows are called by what they are', () => {
  const { dayName, dayNameInFull, monthName } = format;
  for (const [id, name, inFull, within] of [
    ['all_time', 'All time', 'All time', 'in all time'],
    ['sprint:current_day', 'Today', 'Today', 'on Today'],
    ['previous_week', 'Last week', 'Last week', 'in last week'],
    ['week_of_2026_11_23', 'Week 48', 'Week 48, 2026', 'in week 48'],
    ['sprint:week_of_2026_11_22', `Week of ${dayName(first(2026, 10, 22))}`, `Week of ${dayNameInFull(first(2026, 10, 22))}`, `in week of ${dayName(first(2026, 10, 22))}`],
    ['sprint:day_of_2026_11_30', dayName(first(2026, 10, 30)), dayNameInFull(first(2026, 10, 30)), `on ${dayName(first(2026, 10, 30))}`],
    ['sprint:day_of_2026_11_30_2', `${dayName(first(2026, 10, 30))} (2)`, `${dayNameInFull(first(2026, 10, 30))} (2)`, `on ${dayName(first(2026, 10, 30))} (2)`],
    ['sprint:month_of_2026_11', monthName(first(2026, 10, 1)), `${monthName(first(2026, 10, 1))} 2026`, `in ${monthName(first(2026, 10, 1))}`],
    ['sprint:year_of_2026', '2026', '2026', 'in 2026'],
    ['sprint:season_spring_26', 'Season spring 26', 'Season spring 26', 'in season spring 26'],
    ['something', 'something', 'something', 'in something'],
  ]) assert.deepEqual([windowName(id), windowName(id, true), inWindow(id)], [name, inFull, within], id);
  assert.equal(within('day'), 'on this day');
  assert.deepEqual(['week_of_2025_12_29', 'sprint:week_of_2025_12_28', 'sprint:day_of_2025_12_31', 'sprint:year_of_2025', 'season_x'].map(yearOf), [2026, 2025, 2025, null, null]);
});

test('the days of a window stand beside its name, in its own time zone', () => {
  const now = first(2026, 0, 7);
  const days = (...between) => format.daysBetween(...between, now);
  assert.equal(windowDays('week_of_2026_01_05', null, undefined, now), days(first(2026, 0, 5), first(2026, 0, 11)));
  assert.equal(windowDays('sprint:day_of_2026_01_05', null, undefined, now), format.weekdayName(first(2026, 0, 5)));
  const winter = { starts: first(2025, 10, 30, 23), ends: first(2025, 11, 31, 23) }; // in Berlin: all of December
  assert.equal(windowDays('sprint:season_w', winter, 'Europe/Berlin', now), days(first(2025, 11, 1), first(2025, 11, 31)));
  assert.equal(windowDays('sprint:season_w', winter, 'Mars/Olympus', now), days(winter.starts, winter.ends), 'in UTC where the zone is not known');
  for (const id of ['sprint:season_w', 'sprint:month_of_2026_01', 'all_time']) assert.equal(windowDays(id, null, undefined, now), '', id);
});

test('a moment is of the day that it is in its zone', () => {
  const evening = first(2026, 1, 28, 23, 30);
  assert.equal(format.dayIn('Europe/Berlin', evening), format.dayIn('UTC', first(2026, 2, 1)));
  assert.equal(format.dayIn('America/New_York', evening), format.dayIn('UTC', first(2026, 1, 28)));
});

test('when a window runs the server says; of the first leaderboard\'s weeks the id does', () => {
  const at = first(2026, 0, 7, 12);
  const week = { starts: first(2026, 0, 5), ends: first(2026, 0, 12) };
  assert.deepEqual(boundsOf('current_week', null, at), week);
  assert.deepEqual(boundsOf('previous_week', null, at), { starts: week.starts - 7 * DAY, ends: week.starts });
  assert.deepEqual(boundsOf('week_of_2026_01_05', null, at + 30 * DAY), week);
  assert.deepEqual(boundsOf('current_week', { board: 'week_of_2025_12_29' }, at), { starts: week.starts - 7 * DAY, ends: week.starts });
  assert.equal(boundsOf('sprint:current_week', null, at), null);
  const window = { kind: 'day', starts: '2026-01-06T23:00:00.000Z', ends: null };
  assert.deepEqual(boundsOf('sprint:current_day', { window }, at), { starts: first(2026, 0, 6, 23), ends: null });
  assert.deepEqual(boundsOf('sprint:all_time', null, at), { starts: null, ends: null });
});

const SPRINT = { title: 'Sprint', operator: 'best', order: 'ascending', windows: ['all_time', 'day', 'year'], format: { kind: 'duration', unit: 'ms' } };
const listOf = (...all) => readList({ leaderboards: all.map(([slug, definition]) => ({ slug, definition, state: 'live' })) });

test('the list of leaderboards is read, whatever it leaves out', () => {
  assert.deepEqual(readList(null), [DEFAULT]);
  assert.deepEqual(readList({ leaderboards: [] }), [DEFAULT]);
  const [plain, sprint, derived] = listOf(['default', null], ['sprint', SPRINT], ['last', { of: 'sprint', seasons: null }]);
  assert.deepEqual([plain.windows, plain.isBuilding, sprint.order, sprint.submit], [['all_time', 'week'], false, 'ascending', 'players']);
  assert.deepEqual([isOpen(sprint), isOpen(derived), isOpen({ ...sprint, submit: 'servers' })], [true, false, false]);
  assert.deepEqual([titleOf(plain), titleOf(sprint), titleOf(derived)], ['Leaderboard', 'Sprint', 'last']);
  assert.deepEqual(derived.seasons, []);
  assert.equal(boardName('sprint:current_day', sprint), 'Sprint · Today');
  assert.equal(boardName('current_week', plain), 'This week');
});

test('tabs are the windows from the shortest on, all time, and what has ended', () => {
  const [sprint, once] = listOf(['sprint', SPRINT], ['once', { windows: ['all_time'] }]);
  assert.deepEqual(tabsOf(sprint).map(({ words, board }) => [words, board]),
    [['Today', 'sprint:current_day'], ['This year', 'sprint:current_year'], ['All time', 'sprint:all_time'], ['Earlier', null]]);
  assert.deepEqual(tabsOf(once).map(({ id }) => id), ['tab-all'], 'where nothing ends there is nothing earlier');
  const every = { ...sprint, windows: ['all_time', 'day', 'week', 'month', 'year', 'season'] };
  assert.deepEqual(tabsOf(every).map(({ words }) => words), ['Today', 'Week', 'Month', 'Season', 'Year', 'All time', 'Earlier']);
  assert.deepEqual(['current_week', 'day_of_2026_01_01', 'all_time', 'nonsense'].map((board) => boardLike(sprint, board)),
    ['sprint:current_day', 'sprint:current_day', 'sprint:all_time', 'sprint:current_day']);
});

test('the next season is the first that has not begun', () => {
  const seasons = [{ id: 'b', starts: '2026-06-01T00:00:00Z' }, { id: 'a', starts: '2026-03-01T00:00:00Z' }];
  const next = (at) => nextSeason({ seasons }, at)?.id;
  assert.deepEqual([next(first(2026, 0, 1)), next(first(2026, 2, 1)), next(first(2026, 5, 1))], ['a', 'b', undefined]);
});

test('gaps, gains, bars and what goes with a score follow the format', () => {
  const cents = { slug: 'purse', format: { kind: 'decimal', places: 2 } };
  const [laps] = listOf(['sprint', SPRINT]);
  assert.deepEqual([format.gainText(cents, 1250), format.gainText(cents, -5), format.gainText(laps, -1_250), format.gainText(laps, 61_000)],
    ['+12.50', '-0.05', '-1.250', '+1:01.000']);
  assert.deepEqual([format.apart(laps, 994), format.apart(laps, 10_000), format.apart(laps, 61_000), format.apart(cents, 5), format.apart(undefined, 1)],
    ['0.994 s', '10.000 s', '1:01.000', '0.05', '1 point']);
  assert.deepEqual([format.unitWords(undefined), format.unitWords({ slug: 'default', format: { kind: 'integer' } }), format.unitWords(laps), format.unitWords({ slug: 'wins' })],
    [' points', ' points', '', '']);
  assert.deepEqual([format.share(laps, 60, 60), format.share(laps, 120, 60), format.share(laps, 0, 0), format.share(laps, -5, -10)], [1, 0.5, 0, 0]);
  assert.deepEqual([format.share(undefined, 30, 60), format.share(undefined, -30, 60), format.share(undefined, 0, 0)], [0.5, 0, 0]);
  assert.equal(format.metadataWords({ car: 'gt', wet: true, aids: false, lap: 3, tyres: ['a'] }), 'car gt · wet · not aids · lap 3 · tyres ["a"]');
  assert.deepEqual([format.metadataWords(null), format.metadataWords(undefined)], ['', '']);
});

test('where equal scores share no rank, nobody is nearer than level', () => {
  const entries = [50, 50, 40].map((score, at) => ({ user_id: at, score }));
  assert.deepEqual([0, 1, 2].map((at) => format.distance(entries, [1, 2, 3], at)), ['You lead', 'Level with rank 1', '10 points to rank 2']);
});

test('a score is asked for as the operator and the format have it', () => {
  const [points, laps, purse, wins, last] = listOf(['default', null], ['sprint', { ...SPRINT, bounds: { min: 1000, max: 60_000 } }],
    ['purse', { format: { kind: 'decimal', places: 2 } }], ['wins', { operator: 'count' }], ['last', { operator: 'last' }]);
  const entry = (one) => { const { label, type, button, hasScore } = entryOf(one); return [label, type, button, hasScore]; };
  assert.deepEqual([points, laps, purse, wins, last].map(entry), [['Points', 'number', 'Add points', true], ['Time', 'text', 'Hand in', true],
    ['Score', 'text', 'Add', true], ['', 'text', 'Add one', false], ['Score', 'text', 'Hand in', true]]);
  assert.deepEqual(readEntry(points, '100'), { fields: { score_added: 100 }, score: 100, refusal: '' });
  assert.deepEqual(readEntry(laps, '0:12.5').fields, { score: 12_500 });
  assert.deepEqual(readEntry(purse, '12.5').fields, { score_added: 1_250 });
  assert.deepEqual(readEntry(wins, '').fields, {});
  assert.deepEqual(readEntry(last, '-3').fields, { score: -3 });
  const refused = (one, typed) => readEntry(one, typed).refusal;
  assert.match(refused(laps, 'soon'), /^This is no score\. Minutes and seconds/);
  assert.equal(refused(laps, '0.5'), 'The least that counts is 0:01.000.');
  assert.equal(refused(laps, '1:00.001'), 'The most that counts is 1:00.000.');
  assert.match(refused(purse, '-1'), /^The least that counts is 0\.01\.$/);
  assert.match(refused(points, '2147483648'), /^The most that counts is/);
  assert.match(refused(points, ''), /^This is no score\. A whole number\.$/);
});
