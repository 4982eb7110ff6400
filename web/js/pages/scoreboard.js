// Owns the scoreboard page: hears the client, the clock and the user, tells the view, and paints what the view says.
// Never keeps a truth of its own: what is shown is one value, and `next` of model/scoreboard-view.js alone makes it.
import * as model from '../model/scoreboard-view.js';
import { Client } from '../client.js';
import { now } from '../model/clock.js';
import { Chooser } from '../view/chooser.js';
import { boardLike, readLeaderboard, readList } from '../model/leaderboards.js';
import { boardIn, parse } from '../model/windows.js';
import { PlayerCount } from '../view/player-count.js';
import { Countdown } from '../view/countdown.js';
import { find } from '../view/player-search.js';
import { OwnRank } from '../view/own-rank.js';
import { ENDED, getJson, server } from '../server.js';
import { holdSession, session } from '../session.js';
import { readView, viewQuery } from '../model/address.js';
import { Voice } from '../view/voice.js';
import { Podium } from '../view/podium.js';
import { Repaint } from '../view/repaint.js';
import { Rows } from '../view/rows.js';
import { share } from '../view/share.js';
import { Tabs } from '../view/tabs.js';
import { write } from '../view/text.js';

const FOUND_MS = 3_000;
const MADE_MS = 2_000; // how often it is asked how far new standings are
const $ = (id) => document.getElementById(id);
const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const narrow = matchMedia('(max-width: 899px)');

const signedIn = session();
const client = new Client(new URL('ws', server), { token: signedIn?.token }); // where boards are private, they need one
const list = $('list');
const rows = new Rows(list, { covered: () => (narrow.matches ? 3 : 0) });
const podium = new Podium($('podium'));
const countdown = new Countdown($('clock'));
const playerCount = new PlayerCount($('count'));
const voice = new Voice($('spoken'));
const tabs = new Tabs($('tabs'), ({ dataset }) => (dataset.board ? showBoard(dataset.board) : openEarlier()));
const chooser = new Chooser($('chooser'), (slug) => showBoard(boardLike(view.leaderboards.find((one) => one.slug === slug), view.board)));
const ownRank = new OwnRank($('me-bar'), () => goTo(view.me));

let view = model.open(readView(location.search), {
  signedIn, isBare: !location.search, at: client.now(),
  openedAt: now() - performance.now(), // when the visitor asked for the page
});
const leave = []; // ends what the client was asked for
let picker = null; // of windows that have ended: few look for one, so its code comes when it is wanted

function hear(type, event = {}) {
  view = model.next(view, { ...event, type, at: client.now(), now: now() });
}

function say(kind, words, everyMs) {
  if (words) voice.say(kind, words, now(), everyMs);
}

// ---- which board

function showBoard(board) { turn('shown', { board, me: view.me }); }

/** Hears of another board, or of somebody else to be followed, and asks the client for that. */
function turn(type, event, push = true) {
  const { board } = view;
  hear(type, event);
  if (push) history.pushState(null, '', viewQuery(view) || location.pathname);
  for (const stop of leave.splice(0)) stop();
  if (view.board !== board) wipe();
  leave.push(client.subscribe(view.board, onBoard, { describe: true }));
  follow();
  showFrame();
  awaitStandings();
}

/** Nothing is known of the board: takes away what was painted. */
function wipe() {
  showResult();
  write($('count'), '');
  clearRows();
}

function clearRows() {
  rows.clear();
  podium.clear();
}

function follow() {
  if (view.me === null) return;
  const isClosed = model.isClosed(view);
  if (!isClosed) leave.push(client.watch(view.board, view.me, onRank));
  if (isClosed || view.followedName === null) askWho(view.me, view.board);
}

function onRank(message) {
  hear('rank', { message });
  playerCount.learn(message.players);
  say('rank', model.rankWords(view), 10_000);
  repaint.ask();
}

/** Name and place of someone outside the top 100 come over HTTP; the name, if need be, from a board of all time. */
async function askWho(user, board) {
  const ask = (id) => getJson(`boards/${encodeURIComponent(id)}/users/${user}?neighbours=0`).catch(() => null);
  const here = await ask(board);
  const { slug } = parse(board);
  const person = here ?? (slug === 'default' ? null : await ask(boardIn(slug, 'all_time'))) ?? (await ask('all_time'));
  if (!person || view.me !== user) return;
  hear('person', { user, board, here, username: person.username });
  repaint.ask();
}

function onBoard(standings, message) {
  const before = model.isBarred(message) ? null : view.standings;
  hear('board', { standings, message });
  if (message.type === 'rollover') {
    say('week', view.ended.words);
    clearRows();
  }
  if (model.isBarred(message)) wipe();
  if (message.type === 'unsubscribed' && parse(view.board).slug !== 'default') return turn('shown', view, false); // is it gone, or private?
  const isFirst = view.standings && view.standings.board !== before?.board;
  if (isFirst && model.isMisframed(view)) return turn('shown', view, false);
  if (isFirst) showFrame();
  if (isFirst) repaint.now();
  else repaint.ask();
}

// ---- painting

const repaint = new Repaint((still) => {
  hear('clock');
  const { standings, ranks, me } = view;
  const marking = !still && !model.isClosed(view);
  const moving = marking && !reduced.matches;
  const first = standings !== null && !list.hasChildNodes();
  const moved = standings ? rows.paint(standings.entries, ranks, { now: now(), me, moving, marking, leaderboard: model.ruleOf(view) }) : null;
  list.classList.toggle('on-podium', Boolean(standings?.entries.length));
  showEmpty();
  if (first) paintAround({ moving, marking });
  else requestAnimationFrame(() => paintAround({ moving, marking })); // a frame of its own: it measures
  return moved;
});

/** What stands around the list, as the board is by now. */
function paintAround({ moving, marking }) {
  hear('clock');
  const leaderboard = model.ruleOf(view);
  $('podium').hidden = model.isRefused(view);
  write($('won'), model.wonWords(view));
  if (view.standings) podium.paint(view.standings.entries, { ranks: view.ranks, me: view.me, moving, marking, leaderboard });
  ownRank.show(model.followedOf(view), leaderboard);
  playerCount.show(view.standings, view.board, now());
  showLine();
  say('leader', model.leaderWords(view), 15_000);
  hear('painted');
}

function showFrame() {
  const { leaderboards, slug, heading, tabs: all, tab, hasClock, hasWeeks, hasSignIn, title } = model.frameOf(view);
  const { board } = view;
  write($('heading'), heading);
  $('heading').classList.toggle('vh', chooser.show(leaderboards, slug));
  tabs.show(all, tab);
  $('panel').setAttribute('aria-labelledby', tab);
  $('clock').hidden = !hasClock;
  $('picker').hidden = !hasWeeks;
  if (hasWeeks) {
    const about = { window: model.windowOf(view), zone: model.listedOf(view)?.zone };
    ended().then((windows) => windows?.show(model.shownId(view), about, () => view.board === board));
  }
  $('sign-in').hidden = !hasSignIn;
  document.title = title;
}

function showEmpty() {
  const words = model.emptyOf(view);
  $('empty').hidden = !words;
  list.hidden = !view.standings?.entries.length;
  showFirstSteps(words !== null && view.standings !== null);
  if (!words) return;
  write($('empty').firstElementChild, words.title);
  write($('empty').lastElementChild, words.text);
}

let steps = null; // what a board on which nobody ever scored says to whoever runs it

/** Where there is no score at all, what may be done next. */
async function showFirstSteps(isEmpty) {
  $('first').hidden = !isEmpty || !steps;
  if (!isEmpty || steps !== null) return;
  steps = false;
  const { FirstSteps } = await import('../view/first-steps.js').catch(() => ({}));
  const isNew = FirstSteps && (await getJson('boards/all_time?limit=1').catch(() => null))?.players === 0;
  steps = isNew ? new FirstSteps($('first')) : false;
  $('first').hidden = !steps || list.hasChildNodes();
}

function showLine() {
  const { lamp, isOn, note, isOld } = model.lineOf(view, client, now());
  const word = $('lamp').lastElementChild;
  if (word.textContent !== lamp) {
    const before = word.textContent;
    write(word, lamp);
    say('line', model.lampWords(view, before, lamp));
  }
  $('lamp').toggleAttribute('data-on', isOn);
  write($('note'), note);
  $('note').hidden = !note;
  list.classList.toggle('old', isOld);
}

function showResult(player = null, words = '') {
  hear('result', { player, words });
  paintResult();
}

function paintResult() {
  const { words, canFollow, action } = model.resultOf(view);
  $('result').hidden = !words;
  write($('result').firstElementChild, words);
  const button = $('result').lastElementChild;
  button.hidden = !canFollow;
  write(button, action);
}

function tick() {
  hear('clock');
  if (!$('clock').hidden && client.heardAt !== null) countdown.show(model.countdownOf(view)); // before, only this device's word
  rows.settle(now());
  showLine();
  setTimeout(tick, 1000 - (client.now() % 1000));
}

/** The picker of windows that have ended, null where its code does not come. */
async function ended() {
  const { WindowPicker } = await import('../view/window-picker.js').catch(() => ({}));
  return WindowPicker ? (picker ??= new WindowPicker($('picker'), () => client.now(), showBoard)) : null;
}

async function openEarlier() {
  const { slug, kind } = parse(view.board);
  const newest = await (await ended())?.newest(slug, kind);
  if (newest) return showBoard(newest);
  answer(slug === 'default' ? 'No week has been closed yet. The running one becomes the first.' : 'Nothing has ended yet. What runs now becomes the first.');
}

// ---- finding and following

/** Shows what became of a search, and says it aloud. */
function answer(words, player = null) {
  showResult(player, words);
  say('find', words);
}

function choose(user) {
  hear('chosen', { user });
  paintResult();
}

function goTo(user) {
  const index = model.indexOf(view, user);
  if (index < 0) return;
  choose(user);
  const node = rows.node(user);
  if (!node || (narrow.matches && index < 3)) return scrollTo({ top: 0, behavior: reduced.matches ? 'auto' : 'smooth' });
  node.scrollIntoView({ block: 'center', behavior: reduced.matches ? 'auto' : 'smooth' });
  node.classList.add('found');
  setTimeout(() => node.classList.remove('found'), FOUND_MS);
}

$('find').addEventListener('submit', async (event) => {
  event.preventDefault();
  const typed = $('player').value.trim();
  if (!typed) return showResult();
  const { board } = view;
  const { player, words } = await find(typed, board, view.standings?.entries ?? [], view.ranks, model.ruleOf(view));
  if (board !== view.board) return;
  if (player) goTo(player.user_id);
  answer(words, player);
});

$('player').addEventListener('input', () => { if (!$('player').value) showResult(); });

list.addEventListener('click', (event) => {
  const user = Number(event.target.closest('.row')?.dataset.user);
  if (model.indexOf(view, user) >= 0 && !String(getSelection())) choose(user);
});

$('result').lastElementChild.addEventListener('click', () => {
  if (!view.result.player) return;
  turn('follow');
  paintResult();
  say('find', view.result.words);
  repaint.ask(true);
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
  showResult();
});

share($('share'), () => view, (words) => say('copy', words));

// ---- which leaderboards there are

let isListed = false; // the server has answered that
let isAsked = false; // it is being asked that
let isAwaited = false; // it will be asked how far new standings are

async function learnLeaderboards() {
  if (isAsked) return;
  isAsked = true;
  const listed = await getJson('leaderboards').then(readList, ({ status }) => (isListed || status !== 404 ? null : readList(null)));
  isAsked = false;
  if (!listed) return;
  isListed = true;
  hear('leaderboards', { leaderboards: listed });
  showFrame();
  repaint.ask();
  awaitStandings();
}

/** While new standings of the shown leaderboard are being made, asks how far they are. */
async function awaitStandings() {
  const { slug, isBuilding } = model.listedOf(view) ?? {};
  if (!isBuilding || isAwaited) return;
  isAwaited = true;
  await new Promise((done) => { setTimeout(done, MADE_MS); });
  const answer = await getJson(`leaderboards/${encodeURIComponent(slug)}`).catch(() => null);
  isAwaited = false;
  if (answer) hear('leaderboard', { leaderboard: readLeaderboard(answer) });
  repaint.ask();
  showLine();
  if (answer && answer.state !== 'building' && !view.standings && model.listedOf(view)?.slug === slug) turn('shown', view, false);
  awaitStandings();
}

/** What a board says of its leaderboard may be newer than the list. */
client.on('subscribed', ({ leaderboard }) => {
  const listed = view.leaderboards?.find(({ slug }) => slug === leaderboard?.slug);
  const isNews = leaderboard && !(listed?.order === leaderboard.order && listed.format.kind === leaderboard.format?.kind);
  if (isListed && isNews) learnLeaderboards();
});

// ---- start

client.on('state', () => repaint.ask());
client.on('hello', () => {
  if (!isListed) learnLeaderboards();
  hear('clock');
  if (model.isMisframed(view)) turn('shown', view, false);
});
client.on('error', ({ code, board: about }) => {
  if (about || !ENDED.has(code)) return;
  holdSession(null);
  hear('left');
  showFrame();
});
addEventListener('popstate', () => turn('shown', readView(location.search), false));
document.addEventListener('visibilitychange', () => repaint.hide(document.hidden));
narrow.addEventListener('change', () => repaint.ask(true));
repaint.hide(document.hidden);
if (viewQuery(view) !== viewQuery(readView(location.search))) history.replaceState(null, '', viewQuery(view)); // who is signed in
turn('shown', view, false);
learnLeaderboards();
tick();
