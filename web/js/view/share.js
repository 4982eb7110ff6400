// Owns the menu that copies what others need to see this board. Never changes the view.
import { server } from '../server.js';
import { viewQuery } from '../model/address.js';

const COPIED_MS = 2_000;

const texts = {
  link: (view) => new URL(viewQuery(view), new URL('.', location.href)).href,
  embed: ({ board, me }) => {
    const source = new URL('static/js/live-leaderboard.js', server);
    return `<script type="module" src="${source}"></script>\n<live-leaderboard board="${board}"${me === null ? '' : ` user="${me}"`}></live-leaderboard>`;
  },
  overlay: ({ board, me }) => {
    const url = new URL('overlay', server);
    if (board !== 'current_week') url.searchParams.set('board', board);
    if (me !== null) url.searchParams.set('user', me);
    return url.href;
  },
};

/** Copies text, also where the page is not served securely. Answers whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'vh';
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

/** Brings the menu to life. `view()` answers what is shown; `say(words)` tells those who do not see. */
export function share(menu, view, say) {
  menu.addEventListener('click', async ({ target }) => {
    const { copy: what } = target.dataset;
    if (!what) return;
    const words = target.textContent;
    target.textContent = (await copy(texts[what](view()))) ? 'Copied' : 'Copying is not allowed here';
    say(target.textContent);
    setTimeout(() => { target.textContent = words; }, COPIED_MS);
  });
  addEventListener('click', ({ target }) => { if (!menu.contains(target)) menu.open = false; });
}
