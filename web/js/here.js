// Owns where this code was served from, what the address bar says, and who is signed in here.
// Never sends a token to another server. Assumes that every script lies below `static/` of its server, with or without a path prefix.

/** The server's base address: everything before `static/`. */
export const base = (scriptUrl) => new URL(scriptUrl.replace(/\/static\/.*$/, '/'));

export const server = base(import.meta.url);

const BOARD = /^[A-Za-z0-9_.:~-]{1,64}$/;
const SESSION = 'realtime.session';

/** What the page shows, read from its address: the board, and the user who is followed. */
export function readView(search = location.search) {
  const query = new URLSearchParams(search);
  const board = query.get('board');
  const me = query.get('me');
  return {
    board: BOARD.test(board ?? '') ? board : 'current_week',
    me: /^[1-9]\d{0,15}$/.test(me ?? '') ? Number(me) : null,
  };
}

export function viewQuery({ board, me }) {
  const query = new URLSearchParams();
  if (board !== 'current_week') query.set('board', board);
  if (me !== null) query.set('me', me);
  return query.size || [...query].length ? `?${query}` : '';
}

/** Codes that end a session. When that is only the server can tell: this device's clock may be wrong. */
export const ENDED = new Set(['unauthorized', 'expired']);

/** The signed-in player {token, user_id, username}, or null. */
export function session() {
  try {
    const held = JSON.parse(localStorage.getItem(SESSION));
    return held?.token ? held : null;
  } catch { return null; } // storage is off, or what it holds is not ours
}

export function holdSession(held) {
  try {
    if (held) localStorage.setItem(SESSION, JSON.stringify(held));
    else localStorage.removeItem(SESSION);
  } catch { /* storage is off: signed in until the page closes */ }
}

/** Asks this server for whoever is signed in here, as private boards need it; another one for nobody. */
export async function getJson(path, from = server, token = from === server ? session()?.token : undefined) {
  const headers = { accept: 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(new URL(path, from), { headers });
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const { code, message = response.statusText } = body?.error ?? {};
  if (ENDED.has(code) && token && token === session()?.token) { // whoever was signed in here is so no longer
    holdSession(null);
    return getJson(path, from, null);
  }
  throw Object.assign(new Error(message), { status: response.status, code });
}

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
