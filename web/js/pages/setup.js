// Owns the overlay's setup page: choices in, an address, a size and a preview out. Never saves anything.
import { copy } from '../view/share.js';
import { getJson, server } from '../server.js';
import { defaultTop, readOptions, size, writeOptions } from '../model/overlay-options.js';
import { weekNameInFull, weekStart } from '../model/format.js';

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

function offer({ boards }) {
  const weeks = boards.filter(({ closed, board }) => closed && weekStart(board) !== null).slice(0, 20);
  form.elements.board.append(...weeks.map(({ board }) => new Option(weekNameInFull(weekStart(board)), board)));
}

getJson('boards?limit=20', server, null).then(offer, ({ status }) => { // as the overlay asks: for nobody who signed in
  $('private').hidden = status !== 401;
  return getJson('boards?limit=20').then(offer);
}).catch(() => {});
