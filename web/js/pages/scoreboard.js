// Owns the scoreboard page: puts together the connection, the rows, the podium, the clock and the words.
// Never keeps a truth of its own: boards come from the client, the view from the address bar.
import { Beat } from '../view/repaint.js';
import { ranks } from '../model/board.js';
import { Client, RIGHTS } from '../client.js';
import { now } from '../model/clock.js';
import { PlayerCount } from '../view/player-count.js';
import { Countdown } from '../view/countdown.js';
import { find, found } from '../view/player-search.js';
import { FollowedBar, standing } from '../view/own-rank.js';
import { ENDED, getJson, server } from '../server.js';
import { holdSession, session } from '../session.js';
import { readView, viewQuery } from '../model/address.js';
import { describe } from '../model/connection-status.js';
import { Voice } from '../view/voice.js';
import { Podium } from '../view/podium.js';
import { Rows } from '../view/rows.js';
import { share } from '../view/share.js';
import { Tabs } from '../view/tabs.js';
import { Weeks } from '../view/week-picker.js';
import { boardName, points, weekAt, weekName, weekStart } from '../model/format.js';

const DAY_MS = 86_400_000;
const FOUND_MS = 3_000;
const $ = (id) => document.getElementById(id);
const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const narrow = matchMedia('(max-width: 899px)');

let signedIn = session();
const client = new Client(new URL('ws', server), { token: signedIn?.token }); // where boards are private, they need one
const list = $('list');
const rows = new Rows(list, { covered: () => (narrow.matches ? 3 : 0) });
const podium = new Podium($('podium'));
const countdown = new Countdown($('clock'));
const playerCount = new PlayerCount($('count'));
const voice = new Voice($('spoken'));
const tabs = new Tabs($('tabs'), ({ dataset }) => (dataset.board ? show({ ...view, board: dataset.board }) : openEarlier()));
const weeks = new Weeks($('picker'), () => client.now(), (chosen) => show({ ...view, board: chosen }));
const followedBar = new FollowedBar($('me-bar'), () => goTo(view.me));

let view = readView();
let board = null; // what the client holds of the shown board
let ranked = []; // its ranks
let trouble = ''; // what the server said about the board, where it refused it
let rank = null; // last `rank` of the one who is followed
let followedName = null;
let openedAt = now() - performance.now(); // when the visitor asked for the page
let leave = [];
let leader = null;
let framedClosed = false; // as what kind of week the frame shows the board
let result = null; // the player the result line is about

if (view.me === null && signedIn && !location.search) {
  view.me = signedIn.user_id;
  history.replaceState(null, '', viewQuery(view));
}
if (view.me === signedIn?.user_id) followedName = signedIn?.username ?? null;

// ---- which board

const isClosed = () => weekStart(view.board) !== null && weekStart(view.board) < weekAt(client.now());
const shownWeek = () => weekStart(board?.board) ?? weekAt(client.now());

function show(next, push = true) {
  const moved = next.board !== view.board;
  view = next;
  if (push) history.pushState(null, '', viewQuery(view) || location.pathname);
  for (const stop of leave.splice(0)) stop();
  if (moved) blank();
  leave.push(client.subscribe(view.board, onBoard));
  follow();
  frame();
}

function blank() {
  board = rank = leader = null;
  ranked = [];
  trouble = '';
  openedAt = now();
  showResult(null);
  $('count').textContent = '';
  rows.clear();
  podium.clear();
}

function follow() {
  rank = null;
  if (view.me === null) return;
  if (!isClosed()) leave.push(client.watch(view.board, view.me, onRank));
  if (isClosed() || followedName === null) askWho(view.me, view.board);
}

function onRank(message) {
  rank = message;
  playerCount.learn(message.players);
  speakRank();
  beat.ask();
}

/** Name and place of someone outside the top 100 come over HTTP; the name, if need be, from the board of all time. */
async function askWho(user, name) {
  const ask = (id) => getJson(`boards/${encodeURIComponent(id)}/users/${user}?neighbours=0`).catch(() => null);
  const here = await ask(name);
  const person = here ?? (await ask('all_time'));
  if (!person || view.me !== user) return;
  followedName = person.username;
  if (here && view.board === name && isClosed()) rank = here;
  beat.ask();
}

/** Everything around the rows that depends on the view alone. */
function frame() {
  const closed = framedClosed = isClosed();
  const current = closed || weekStart(view.board) !== null ? 'tab-earlier' : view.board === 'all_time' ? 'tab-all' : 'tab-week';
  tabs.select(current);
  $('panel').setAttribute('aria-labelledby', current);
  $('clock').hidden = view.board !== 'current_week';
  $('picker').hidden = current !== 'tab-earlier';
  if (current === 'tab-earlier') showWeek(view.board);
  $('sign-in').hidden = Boolean(signedIn) || view.me !== null;
  document.title = `${boardName(view.board)} · Leaderboard`;
}

function onBoard(next, message) {
  if (message.type === 'rollover') {
    voice.say('week', countdown.rollover(weekStart(message.from), weekStart(message.to), client.now()), now());
    rank = null;
    rows.clear();
    podium.clear();
  }
  if (isBarred(message)) {
    blank();
    next = null;
  }
  trouble = troubleIn(message);
  const first = next && next.board !== board?.board;
  board = next;
  if (first) beat.now();
  else beat.ask();
}

/** Whether the board may not be seen, or no longer: it is private. */
const isBarred = ({ type, code }) => type === 'unsubscribed' || (type === 'error' && RIGHTS.has(code));

function troubleIn(message) {
  if (isBarred(message) && message.code !== 'forbidden') return 'This board is private. Sign in to see it.';
  return message.type === 'error' ? message.message || message.code : '';
}

// ---- painting

const beat = new Beat((still) => {
  const entries = board?.entries ?? [];
  ranked = ranks(entries);
  const marking = !still && !isClosed();
  const moving = marking && !reduced.matches;
  const first = board !== null && !list.hasChildNodes();
  const moved = board ? rows.paint(entries, ranked, { now: now(), me: view.me, moving, marking }) : null;
  list.classList.toggle('on-podium', entries.length > 0);
  showEmpty();
  if (first) paintAround({ moving, marking });
  else requestAnimationFrame(() => paintAround({ moving, marking })); // a frame of its own: it measures
  return moved;
});

/** What stands around the list, as the board is by now. */
function paintAround({ moving, marking }) {
  const entries = board?.entries ?? [];
  if (board) podium.paint(entries, { me: view.me, moving, marking });
  showFollowed(entries);
  playerCount.show(board, view.board, now());
  showLine();
  announceLeader(entries[0]);
}

function showFollowed(entries) {
  if (view.me === null || !board) return followedBar.show(null);
  const closedWords = isClosed() ? `Your final rank in ${weekName(shownWeek()).toLowerCase()}` : '';
  followedBar.show(standing(view.me, entries, ranked, rank, followedName, closedWords));
}

function showEmpty() {
  const empty = board !== null && !board.entries.length;
  $('empty').hidden = !empty && !(view.board === '' || (trouble && !board));
  list.hidden = !board?.entries.length;
  if ($('empty').hidden) return;
  const [title, text] = empty
    ? [weekStart(board.board) === null ? 'No scores yet' : isClosed() ? 'Nobody scored in this week' : startedWords(),
      isClosed() ? '' : 'The first score takes rank 1.']
    : ['There is nothing to show here', trouble];
  $('empty').firstElementChild.textContent = title;
  $('empty').lastElementChild.textContent = text;
}

const startedWords = () =>
  client.now() - shownWeek() < DAY_MS ? `${weekName(shownWeek())} has just started` : `No scores in ${weekName(shownWeek()).toLowerCase()} yet`;

function showLine() {
  const said = describe(client, { openedAt, hasBoard: board !== null || trouble !== '' }, now());
  const final = isClosed() && !trouble;
  const lamp = final && said.on ? 'Final' : said.lamp;
  const word = $('lamp').lastElementChild;
  if (word.textContent !== lamp) {
    const was = word.textContent;
    word.textContent = lamp;
    if (board && was !== 'Connecting') voice.say('line', lamp === 'Live' || lamp === 'Final' ? 'Connected' : lamp, now());
  }
  $('lamp').toggleAttribute('data-on', said.on && !final);
  if ($('note').textContent !== said.note) $('note').textContent = said.note;
  $('note').hidden = !said.note;
  list.classList.toggle('old', said.old);
}

function announceLeader(first) {
  if (!first) return;
  if (leader !== null && leader !== first.user_id) voice.say('leader', `${first.username} leads with ${points(first.score)}`, now(), 15_000);
  leader = first.user_id;
}

function speakRank() {
  if (rank?.rank) voice.say('rank', `You are rank ${rank.rank} with ${points(rank.score)}`, now(), 10_000);
}

function tick() {
  if (!$('clock').hidden && client.heardAt !== null) countdown.tick(shownWeek(), client.now()); // before, only this device's word
  rows.settle(now());
  showLine();
  setTimeout(tick, 1000 - (client.now() % 1000));
}

const showWeek = (week) => weeks.show(week, () => view.board === week);

async function openEarlier() {
  const newest = await weeks.newest();
  if (newest) show({ ...view, board: newest });
  else say('No week has been closed yet. The running one becomes the first.');
}

// ---- finding and following

function showResult(player, words = '') {
  result = player;
  $('result').hidden = !words;
  $('result').firstElementChild.textContent = words;
  const button = $('result').lastElementChild;
  button.hidden = !player;
  button.textContent = player?.user_id === view.me ? 'Stop following' : 'Follow';
}

function say(words) {
  showResult(null, words);
  voice.say('find', words, now());
}

const placeOf = (user) => board?.entries.findIndex((entry) => entry.user_id === user) ?? -1;

const showPlace = (at) => showResult(board.entries[at], found({ ...board.entries[at], rank: ranked[at] }, true));

function goTo(user) {
  const at = placeOf(user);
  if (at < 0) return;
  showPlace(at);
  const node = rows.node(user);
  if (!node || (narrow.matches && at < 3)) return scrollTo({ top: 0, behavior: reduced.matches ? 'auto' : 'smooth' });
  node.scrollIntoView({ block: 'center', behavior: reduced.matches ? 'auto' : 'smooth' });
  node.classList.add('found');
  setTimeout(() => node.classList.remove('found'), FOUND_MS);
}

$('find').addEventListener('submit', async (event) => {
  event.preventDefault();
  const words = $('player').value.trim();
  if (!words) return showResult(null);
  const asked = view.board;
  const answer = await find(words, asked, board?.entries ?? [], ranked);
  if (asked !== view.board) return;
  if (answer.player) goTo(answer.player.user_id);
  showResult(answer.player, answer.words);
  voice.say('find', answer.words, now());
});

$('player').addEventListener('input', () => { if (!$('player').value) showResult(null); });

list.addEventListener('click', (event) => {
  const at = placeOf(Number(event.target.closest('.row')?.dataset.user));
  if (at >= 0 && !String(getSelection())) showPlace(at);
});

$('result').lastElementChild.addEventListener('click', () => {
  if (!result) return;
  const stop = result.user_id === view.me;
  followedName = stop ? null : result.username;
  show({ ...view, me: stop ? null : result.user_id });
  say(stop ? `You no longer follow ${result?.username ?? 'anyone'}.` : `You follow ${followedName}.`);
  beat.ask(true);
});

addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select');
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $('player').focus();
  }
  if (event.key !== 'Escape') return;
  $('share').open = false;
  if (event.target === $('player')) $('player').value = '';
  showResult(null);
});

share($('share'), () => view, (words) => voice.say('copy', words, now()));

// ---- start

client.on('state', () => beat.ask());
client.on('hello', () => { if (isClosed() !== framedClosed) show(view, false); }); // this device's clock was wrong
client.on('error', ({ code, board: about }) => {
  if (about || !ENDED.has(code)) return;
  holdSession(signedIn = null);
  frame();
});
addEventListener('popstate', () => show(readView(), false));
document.addEventListener('visibilitychange', () => beat.hide(document.hidden));
narrow.addEventListener('change', () => beat.ask(true));
beat.hide(document.hidden);
show(view, false);
tick();
