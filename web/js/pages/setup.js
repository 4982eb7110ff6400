// Owns the overlay's setup page: choices in, an address, a size and a preview out. Never saves anything.
import { copy } from '../view/share.js';
import { getJson, server } from '../server.js';
import { defaultTop, readOptions, size, writeOptions } from '../model/overlay-options.js';
import { DEFAULT, readList, tabsOf, titleOf } from '../model/leaderboards.js';
import { boardIn, parse, windowName } from '../model/windows.js';

const $ = (id) => document.getElementById(id);
const form = $('form');
const overlay = new URL('overlay', server);
let previewed = '';
let touchedTop = false;

function chosen() {
  const { board, shape, theme, top, scale, title, header, clock, motion, status, user } = form.elements;
  const query = new URLSearchParams({
    board: board.value, shape: shape.value, theme: theme.value, top: top.value, scale: Number(scale.value) / 100,
    clock: Number(clock.checked), motion: Number(motion.checked), status: Number(status.checked), user: user.value.trim(),
  });
  if (!header.checked) query.set('title', '');
  else if (title.value.trim()) query.set('title', title.value);
  return readOptions(query); // the same rules as the overlay's own
}

function show() {
  const options = chosen();
  const [topShown, scaleShown] = form.querySelectorAll('output');
  topShown.value = options.top;
  scaleShown.value = `${Math.round(options.scale * 100)} %`;
  form.elements.title.disabled = !form.elements.header.checked;
  const query = writeOptions(options);
  $('address').value = query ? `${overlay}?${query}` : String(overlay);
  const { slug, kind } = parse(options.board);
  $('clock-words').textContent = `Countdown to the ${kind === null || kind === 'all_time' ? 'week' : kind}’s end`;
  $('private').hidden = !isPrivate && leaderboards.find((one) => one.slug === slug)?.visible !== 'private';
  const { width, height } = size(options);
  $('size').textContent = `Set Width ${width} and Height ${height}.`;
  preview(options, width, height);
}

function preview(options, width, height) {
  const address = `${overlay}?${writeOptions({ ...options, sample: true })}`;
  if (address !== previewed) $('frame').contentWindow?.location.replace(previewed = address);
  const { clientWidth, clientHeight } = $('stage');
  const scale = Math.min(1, clientWidth / width, clientHeight / height);
  Object.assign($('frame').style, {
    width: `${width}px`, height: `${height}px`, transform: `scale(${scale})`,
    left: `${Math.round((clientWidth - width * scale) / 2)}px`, top: `${Math.round((clientHeight - height * scale) / 2)}px`,
  });
  $('shown').textContent = scale < 1 ? `Sample players. Shown at ${Math.floor(scale * 100)} %.` : 'Sample players.';
}

form.elements.top.addEventListener('input', () => { touchedTop = true; });
for (const radio of form.elements.shape) {
  radio.addEventListener('input', () => { if (!touchedTop) form.elements.top.value = defaultTop(radio.value); });
}
form.addEventListener('input', show);
form.addEventListener('submit', (event) => event.preventDefault());
for (const radio of document.getElementsByName('behind')) {
  radio.addEventListener('change', () => { $('stage').className = `stage ${radio.value}`; });
}
$('address').addEventListener('focus', () => $('address').select());
$('copy').addEventListener('click', async () => {
  const done = await copy($('address').value);
  $('copy').textContent = $('spoken').textContent = done ? 'Copied' : 'Select and copy it';
  if (!done) $('address').focus();
  setTimeout(() => { $('copy').textContent = 'Copy'; }, 2_000);
});
new ResizeObserver(show).observe($('stage'));

// ---- which boards there are

const select = form.elements.board;
const offered = new Set(); // slugs whose ended windows are there
let groups = new Map(); // slug -> where its options stand
let leaderboards = readList(null);
let isPrivate = false;

/** Everything that runs of every leaderboard, where there is more than the usual; what has ended follows when it is chosen. */
async function offerLeaderboards() {
  const answer = await asked('leaderboards').catch(() => null);
  const list = readList(answer);
  const isUsual = list.length === 1 && list[0].windows.every((window) => DEFAULT.windows.includes(window));
  if (isUsual) return;
  leaderboards = list;
  groups = new Map(list.map((one) => {
    const group = Object.assign(document.createElement('optgroup'), { label: titleOf(one) });
    const running = tabsOf(one).filter(({ board }) => board !== null);
    const names = [...running.map(({ board }) => board), ...running.filter(({ kind }) => kind !== 'all_time').map(({ kind }) => boardIn(one.slug, `previous_${kind}`))];
    group.append(...names.map((board) => option(board, windowName(board))));
    return [one.slug, group];
  }));
  const chosenBoard = select.value;
  select.replaceChildren(...groups.values());
  select.value = chosenBoard;
  if (!select.value) select.selectedIndex = 0;
  nameChosen();
  show();
}

const option = (board, name) => Object.assign(new Option(name, board), { short: name });

/** What is chosen is called with its leaderboard, which the closed list would not show; all others stand below it. */
function nameChosen() {
  if (leaderboards.length < 2) return;
  for (const one of select.options) {
    const of = leaderboards.find(({ slug }) => slug === parse(one.value).slug);
    one.textContent = one.selected && of ? `${titleOf(of)} · ${one.short}` : one.short;
  }
}

/** What has ended of the chosen leaderboard. */
async function offerEnded() {
  const { slug } = parse(select.value);
  if (offered.has(slug)) return;
  offered.add(slug);
  const of = slug === 'default' ? '' : `&leaderboard=${encodeURIComponent(slug)}`;
  const { boards } = await asked(`boards?limit=20${of}`);
  const ended = boards.filter(({ closed, board }) => closed && parse(board).kind !== null).slice(0, 20);
  (groups.get(slug) ?? select).append(...ended.map(({ board }) => option(board, windowName(board, true))));
}

/** As the overlay asks, for nobody who signed in; where that is refused, for whoever did. */
async function asked(path) {
  try {
    return await getJson(path, server, null);
  } catch ({ status }) {
    isPrivate ||= status === 401;
    show();
    return getJson(path);
  }
}

select.addEventListener('change', () => { nameChosen(); offerEnded().catch(() => {}); });
offerLeaderboards().then(offerEnded).catch(() => {});
