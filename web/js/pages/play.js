// Owns the page where a player registers, signs in and scores. Points count when the server says so, not before.
// The token goes to the server in a message, never in an address; it is kept on this device until it expires.
import { Client } from '../client.js';
import { now } from '../model/clock.js';
import { ENDED, getJson, server } from '../server.js';
import { holdSession, session } from '../session.js';
import { describe } from '../model/connection-status.js';
import { amount, gain } from '../model/format.js';

const LOG_LENGTH = 50;
const ASKS = 5; // how often a server that has too much to do is asked again
const $ = (id) => document.getElementById(id);
const TABS = { join: $('tab-join'), enter: $('tab-enter') };

let held = null;
let client = null;
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

function choose(kind) {
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
  $('enter').textContent = joining ? 'Start playing' : 'Sign in';
  refuse('');
}

function refuse(words) {
  $('refusal').textContent = words;
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
  client = counted = null;
  $('log').replaceChildren();
  for (const id of ['week-score', 'week-rank', 'total-score']) $(id).textContent = '–';
  $('signed-in').hidden = true;
  $('signed-out').hidden = false;
  choose('enter');
  refuse(words);
}

// ---- scoring

function start() {
  $('signed-out').hidden = true;
  $('signed-in').hidden = false;
  $('me-name').textContent = held.username;
  $('see').href = `./?me=${held.user_id}`;
  client = new Client(new URL('ws', server), { token: held.token });
  client.on('state', showLine);
  client.on('error', ({ code, board }) => {
    if (!board && ENDED.has(code)) leave('You have been signed out. Sign in again.');
  });
  client.subscribe('current_week', () => {});
  client.watch('current_week', held.user_id, (message) => {
    const { rank, score } = message;
    $('week-rank').textContent = rank ? amount(rank) : '–';
    $('week-score').textContent = amount(score ?? 0);
    if (counted && rank) counted.textContent = `Counted, rank ${amount(rank)}`;
    counted = null;
  });
  getJson(`boards/all_time/users/${held.user_id}?neighbours=0`, server, held.token).then(({ score }) => showTotal(score), () => {});
}

function showTotal(score) { $('total-score').textContent = amount(score ?? 0); }

function span(name, text) {
  const node = document.createElement('span');
  node.className = name;
  node.textContent = text;
  return node;
}

async function add(event) {
  event.preventDefault();
  const score_added = Number($('points').value);
  const reason = $('reason').value.trim();
  const state = span('state waiting', client.state === 'live' ? 'Sending' : 'Waiting for the connection');
  const line = document.createElement('li');
  line.append(span('num', gain(score_added)), span('why', reason), state);
  $('log').prepend(line);
  $('log-empty').hidden = true;
  while ($('log').children.length > LOG_LENGTH) $('log').lastElementChild.remove();
  const outcome = await client.submit({ score_added, reason: reason || undefined });
  show(outcome, state);
}

function show(outcome, state) {
  const accepted = outcome.type === 'accepted';
  state.className = `state ${accepted ? 'counted' : 'refused'}`;
  state.textContent = accepted ? 'Counted' : `Refused: ${outcome.message || outcome.code}`;
  $('spoken').textContent = state.textContent;
  if (!accepted) return;
  $('week-score').textContent = amount(outcome.week_score);
  showTotal(outcome.total_score);
  counted = state; // its rank follows in a message of its own
}

function showLine() {
  if (!client) return;
  const said = describe(client, { openedAt, hasBoard: true }, now());
  $('lamp').lastElementChild.textContent = said.lamp;
  $('lamp').toggleAttribute('data-on', said.on);
  const waiting = document.querySelectorAll('.log .waiting');
  for (const node of waiting) node.textContent = client.state === 'live' ? 'Sending' : 'Waiting for the connection';
}

// ---- start

for (const [kind, tab] of Object.entries(TABS)) {
  tab.addEventListener('click', () => choose(kind));
  tab.addEventListener('keydown', ({ key }) => {
    if (!['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(key)) return;
    const other = key === 'Home' ? 'join' : key === 'End' ? 'enter' : kind === 'join' ? 'enter' : 'join';
    choose(other);
    TABS[other].focus();
  });
}
$('join').addEventListener('submit', enter);
$('add').addEventListener('submit', add);
$('leave').addEventListener('click', () => leave());
setInterval(showLine, 1000);
held = session();
if (held) start();
else { $('signed-out').hidden = false; choose('join'); }
