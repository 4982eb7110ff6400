// Owns the page where a player registers, signs in and scores. Scores count when the server says so, not before.
// The token goes to the server in a message, never in an address; it is kept on this device until it expires.
import { Client } from '../client.js';
import { now } from '../model/clock.js';
import { ENDED, getJson, server } from '../server.js';
import { holdSession, session } from '../session.js';
import { describe } from '../model/connection-status.js';
import { entryOf, readEntry } from '../model/score-entry.js';
import { amount, gainText, scoreText } from '../model/format.js';
import { boardLike, DEFAULT, isOpen, readList, titleOf } from '../model/leaderboards.js';
import { boardIn, kindName, parse } from '../model/windows.js';
import { write } from '../view/text.js';

const LOG_LENGTH = 50;
const ASKS = 5; // how often a server that has too much to do is asked again
const $ = (id) => document.getElementById(id);
const TABS = { join: $('tab-join'), enter: $('tab-enter') };

let held = null;
let client = null;
let leaderboard = DEFAULT; // to which scores are handed in
let running = null; // the board of it whose rank is shown: {asked, id}
let following = []; // ends what the client was asked for
let counted = null; // the latest counted line, until its new rank is known
let entering = 'join';
const openedAt = now();

// ---- the account

async function post(path, body, asks = ASKS) {
  const response = await fetch(new URL(path, server), {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  }).catch(() => null);
  if (!response) throw new Error('The server does not answer. Check your connection and try again.');
  const answer = await response.json().catch(() => null);
  const { code, retry_after_ms: wait } = answer?.error ?? {};
  if (code === 'overloaded' && asks) { // it has done nothing yet
    await new Promise((resolve) => { setTimeout(resolve, (wait ?? 1000) * (0.5 + Math.random())); });
    return post(path, body, asks - 1);
  }
  if (!response.ok) throw new Error(answer?.error?.message ?? `The server answered ${response.status}. Try again in a moment.`);
  return answer;
}

function turnTo(kind) {
  entering = kind;
  for (const [name, tab] of Object.entries(TABS)) {
    tab.setAttribute('aria-selected', name === kind);
    tab.tabIndex = name === kind ? 0 : -1;
  }
  $('account').setAttribute('aria-labelledby', TABS[kind].id);
  const joining = kind === 'join';
  $('name-field').hidden = $('password-hint').hidden = !joining;
  $('username').disabled = !joining;
  $('password').autocomplete = joining ? 'new-password' : 'current-password';
  write($('enter'), joining ? 'Start playing' : 'Sign in');
  refuse('');
}

function refuse(words) {
  write($('refusal'), words);
  $('refusal').hidden = !words;
}

async function enter(event) {
  event.preventDefault();
  const [email, password, username] = [$('email').value.trim(), $('password').value, $('username').value.trim()];
  $('enter').disabled = true;
  refuse('');
  try {
    if (entering === 'join') await post('users', { email, password, username });
    const { token } = await post('sessions', { email, password });
    const response = await fetch(new URL('users/me', server), { headers: { authorization: `Bearer ${token}` } });
    const me = await response.json();
    held = { token, user_id: me.user_id, username: me.username };
    holdSession(held);
    $('password').value = '';
    start();
    $('points').focus();
  } catch (error) {
    refuse(error.message);
  } finally {
    $('enter').disabled = false;
  }
}

function leave(words = '') {
  holdSession(held = null);
  client?.close();
  client = counted = running = null;
  following = [];
  $('log').replaceChildren();
  showNothing();
  $('signed-in').hidden = true;
  $('signed-out').hidden = false;
  turnTo('enter');
  refuse(words);
}

// ---- scoring

function start() {
  $('signed-out').hidden = true;
  $('signed-in').hidden = false;
  write($('me-name'), held.username);
  client = new Client(new URL('ws', server), { token: held.token });
  client.on('state', showLine);
  client.on('error', ({ code, board }) => {
    if (!board && ENDED.has(code)) leave('You have been signed out. Sign in again.');
  });
  choose(leaderboard);
  const mine = client;
  getJson('leaderboards', server, held.token).then((answer) => { if (client === mine) offer(answer); }, () => {});
}

/** Every leaderboard that players hand in to, where there is more than `default`. */
function offer(answer) {
  const open = readList(answer).filter(isOpen);
  $('add').hidden = open.length === 0;
  $('closed').hidden = open.length > 0;
  $('leaderboard').replaceChildren(...open.map((one) => new Option(titleOf(one), one.slug)));
  $('leaderboard-field').hidden = open.length < 2;
  $('leaderboard').onchange = () => choose(open.find(({ slug }) => slug === $('leaderboard').value));
  const kept = open.find(({ slug }) => slug === leaderboard.slug) ?? open[0];
  if (!kept) return;
  $('leaderboard').value = kept.slug;
  choose(kept);
}

/** Scores go to this leaderboard from now on. */
function choose(chosen) {
  const isSame = running && chosen.slug === leaderboard.slug && boardLike(chosen, 'current_week') === running.asked;
  leaderboard = chosen;
  showEntry();
  if (isSame) return;
  for (const stop of following.splice(0)) stop();
  counted = null;
  showNothing();
  const asked = boardLike(leaderboard, 'current_week');
  const board = running = { asked, id: null };
  const { slug, windows } = leaderboard;
  const hasTotal = windows.includes('all_time') && parse(asked).kind !== 'all_time';
  write($('week-label'), kindName(parse(asked).kind));
  $('total').hidden = !hasTotal;
  $('see').href = `./?${new URLSearchParams({ ...(slug === 'default' ? {} : { board: asked }), me: held.user_id })}`;
  following.push(client.subscribe(asked, (standings) => { board.id = standings?.board ?? null; }));
  following.push(client.watch(asked, held.user_id, ({ rank, score }) => {
    write($('week-rank'), rank ? amount(rank) : '–');
    write($('week-score'), scoreOr(score));
    if (counted && rank) write(counted, `Counted, rank ${amount(rank)}`);
    counted = null;
  }));
  if (!hasTotal) return;
  const all = encodeURIComponent(boardIn(slug, 'all_time'));
  getJson(`boards/${all}/users/${held.user_id}?neighbours=0`, server, held.token)
    .then(({ score }) => { if (running === board) showTotal(score); }, () => {});
}

/** The fields as the leaderboard's operator and format ask for them. */
function showEntry() {
  const { label, hint, type, value, min, max, button, hasScore } = entryOf(leaderboard);
  const input = $('points');
  if (input.dataset.of !== leaderboard.slug) Object.assign(input, { type, value, min, max });
  input.dataset.of = leaderboard.slug;
  input.inputMode = type === 'number' ? 'numeric' : 'text';
  input.required = hasScore;
  input.setCustomValidity('');
  $('points-field').hidden = !hasScore;
  write($('points-label'), label);
  write($('points-hint'), hint);
  $('points-hint').hidden = !hint;
  write($('hand-in'), button);
}

function showNothing() {
  for (const id of ['week-score', 'week-rank', 'total-score']) write($(id), '–');
}

/** A score; where there is none, what a sum begins with. */
const scoreOr = (score) => (score === null && leaderboard.operator !== 'sum' ? '–' : scoreText(leaderboard, score ?? 0));

function showTotal(score) { write($('total-score'), scoreOr(score ?? null)); }

function span(name, text) {
  const node = document.createElement('span');
  node.className = name;
  write(node, text);
  return node;
}

async function add(event) {
  event.preventDefault();
  const { fields, score, refusal } = readEntry(leaderboard, $('points').value);
  $('points').setCustomValidity(refusal);
  if (refusal) return $('points').reportValidity();
  const reason = $('reason').value.trim();
  const state = span('state waiting', client.state === 'live' ? 'Sending' : 'Waiting for the connection');
  const line = document.createElement('li');
  const { slug, operator } = leaderboard;
  const isAdded = operator === 'sum' || operator === 'count';
  const amountText = isAdded ? gainText(operator === 'sum' ? leaderboard : undefined, score) : scoreText(leaderboard, score);
  line.append(span('num', amountText), span('why', reason), state);
  $('log').prepend(line);
  $('log-empty').hidden = true;
  while ($('log').children.length > LOG_LENGTH) $('log').lastElementChild.remove();
  const outcome = await client.submit({ ...fields, leaderboard: slug === 'default' ? undefined : slug, reason: reason || undefined });
  show(outcome, state, slug);
}

function show(outcome, state, slug) {
  const accepted = outcome.type === 'accepted';
  const isBeaten = accepted && slug === leaderboard.slug && leaderboard.operator === 'best' && !outcome.improved;
  state.className = `state ${accepted ? 'counted' : 'refused'}`;
  write(state, isBeaten ? 'Recorded. Your best stays.' : accepted ? 'Counted' : `Refused: ${outcome.message || outcome.code}`);
  write($('spoken'), state.textContent);
  if (!accepted || slug !== leaderboard.slug) return;
  const all = boardIn(slug, 'all_time');
  const { [running?.id]: current = outcome.week_score, [all]: total = outcome.total_score } = outcome.scores ?? {};
  if (current !== undefined) write($('week-score'), scoreOr(current));
  if (total !== undefined) showTotal(total);
  if (!isBeaten) counted = state; // its rank follows in a message of its own
}

function showLine() {
  if (!client) return;
  const said = describe(client, { openedAt, hasBoard: true }, now());
  write($('lamp').lastElementChild, said.lamp);
  $('lamp').toggleAttribute('data-on', said.on);
  const waiting = document.querySelectorAll('.log .waiting');
  for (const node of waiting) write(node, client.state === 'live' ? 'Sending' : 'Waiting for the connection');
}

// ---- start

for (const [kind, tab] of Object.entries(TABS)) {
  tab.addEventListener('click', () => turnTo(kind));
  tab.addEventListener('keydown', ({ key }) => {
    if (!['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(key)) return;
    const other = key === 'Home' ? 'join' : key === 'End' ? 'enter' : kind === 'join' ? 'enter' : 'join';
    turnTo(other);
    TABS[other].focus();
  });
}
$('join').addEventListener('submit', enter);
$('add').addEventListener('submit', add);
$('points').addEventListener('input', () => $('points').setCustomValidity(''));
$('leave').addEventListener('click', () => leave());
setInterval(showLine, 1000);
const isOpenToAll = document.body.dataset.registration === 'open';
held = session();
if (!isOpenToAll) $('tab-join').parentElement.hidden = true; // nobody can register here
if (held) start();
else { $('signed-out').hidden = false; turnTo(isOpenToAll ? 'join' : 'enter'); }
