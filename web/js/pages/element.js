// Owns the page where <live-leaderboard> is tried: fields in, the element's attributes and the markup for one's own page out.
import '../live-leaderboard.js';
import { copy } from '../view/share.js';
import { server } from '../server.js';

const $ = (id) => document.getElementById(id);
const form = $('try');
const shown = $('shown');
const quoted = (text) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');

function show() {
  const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim() !== ''));
  for (const { name } of form.elements) {
    if (!name) continue;
    if (name in given) shown.setAttribute(name, given[name]);
    else shown.removeAttribute(name);
  }
  const attributes = Object.entries(given).map(([name, value]) => ` ${name}="${quoted(value)}"`).join('');
  const script = new URL('static/js/live-leaderboard.js', server);
  $('markup').textContent = `<script type="module" src="${script}"></script>\n<live-leaderboard${attributes}></live-leaderboard>`;
}

form.addEventListener('input', show);
form.addEventListener('submit', (event) => event.preventDefault());
$('copy').addEventListener('click', async () => {
  $('copy').textContent = (await copy($('markup').textContent)) ? 'Copied' : 'Select and copy it';
  setTimeout(() => { $('copy').textContent = 'Copy'; }, 2_000);
});
for (const type of ['change', 'rank', 'state']) {
  shown.addEventListener(type, ({ detail }) => { $('heard').textContent = `${type} ${JSON.stringify(detail.board?.board ?? detail)}`; });
}
show();
