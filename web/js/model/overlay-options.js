// Owns what an overlay's address can say, and what follows from it. Pure: text in, values out and back.
// What is missing or invalid falls to its default; an overlay never shows an error because of its address.

export const DEFAULTS = Object.freeze({
  board: 'current_week', shape: 'column', theme: 'board', top: 10, scale: 1, title: null, clock: true, motion: true,
  status: false, user: null, sample: false,
});
export const SHAPES = ['column', 'strip'];
export const THEMES = ['board', 'paper', 'outline'];
export const TITLE_LENGTH = 24;
const NAME_LENGTH = 64;
const STRIP_TOP = 5;
const CELL = 284; // room for a name of some fifteen letters
const ROW = 54;

const within = (text, low, high, fallback, whole) => {
  const value = Number(text);
  const fits = text !== null && text.trim() !== '' && value >= low && value <= high && (!whole || Number.isInteger(value));
  return fits ? value : fallback;
};
const flag = (text, fallback) => (text === '1' ? true : text === '0' ? false : fallback);
const oneOf = (text, allowed) => (allowed.includes(text) ? text : allowed[0]);

/** The options in a query string. `title` is null where the board's own name is to stand, '' where no header is. */
export function readOptions(search) {
  const query = new URLSearchParams(search);
  const shape = oneOf(query.get('shape'), SHAPES);
  const board = query.get('board') ?? '';
  return {
    board: /^[A-Za-z0-9_.:~-]{1,64}$/.test(board) ? board : DEFAULTS.board,
    shape,
    theme: oneOf(query.get('theme'), THEMES),
    top: within(query.get('top'), 1, 20, defaultTop(shape), true),
    scale: within(query.get('scale'), 0.75, 2, DEFAULTS.scale, false),
    title: query.has('title') ? [...query.get('title')].slice(0, TITLE_LENGTH).join('').trim() : null,
    clock: flag(query.get('clock'), DEFAULTS.clock),
    motion: flag(query.get('motion'), DEFAULTS.motion),
    status: flag(query.get('status'), DEFAULTS.status),
    user: within(query.get('user'), 1, Number.MAX_SAFE_INTEGER, null, true) ?? (nameIn(query.get('user')) || null),
    sample: query.get('sample') === '1',
  };
}

/** A player's name, as far as it can be one. */
const nameIn = (text) => [...(text ?? '').trim()].slice(0, NAME_LENGTH).join('');

export const defaultTop = (shape) => (shape === 'strip' ? STRIP_TOP : DEFAULTS.top);

/** The shortest query string that reads back as `options`. */
export function writeOptions(options) {
  const query = new URLSearchParams();
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const value = options[name];
    const usual = name === 'top' ? defaultTop(options.shape) : fallback;
    if (value === usual || value === undefined) continue;
    query.set(name, typeof value === 'boolean' ? Number(value) : value);
  }
  return String(query);
}

/** Width and height in pixels to enter in OBS. */
export function size({ shape, top, scale, title }) {
  if (shape === 'strip') {
    const cells = title === '' ? 0 : 224;
    return { width: Math.max(1280, Math.ceil((cells + 8 + top * (CELL + 4)) * scale)), height: Math.ceil(88 * scale) };
  }
  return { width: Math.ceil(400 * scale), height: Math.ceil((title === '' ? 12 : 60) * scale + ROW * top * scale) };
}
