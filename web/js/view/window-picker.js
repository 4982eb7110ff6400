// Owns the choice among windows that have ended: which ones a leaderboard has, as the server tells, and the picker that names
// them. Never changes what is shown; tells `choose(board)`. Asks anew once a window has ended, however long the page slept.
import { getJson } from '../server.js';
import { weekAt, weekEnd } from '../model/format.js';
import { write } from './text.js';
import { KINDS, kindNames, parse, windowDays, windowName, yearOf } from '../model/windows.js';

const PAGE = 1000;
const MOST = 5 * PAGE; // nobody looks for one in a longer list
const AGAIN_MS = 60_000; // where nothing runs that could end

export class WindowPicker {
  #select; #days; #turns; #beside = []; #now; #known = new Map(); // slug -> {ended: ids, newest first; until when that is all}

  /** `now()`: the server's time, in milliseconds since 1970. */
  constructor(node, now, choose) {
    this.#select = node.querySelector('select');
    this.#days = node.querySelector('p');
    this.#turns = [...node.querySelectorAll('button')];
    this.#now = now;
    this.#select.addEventListener('change', () => choose(this.#select.value));
    this.#turns.forEach((button, at) => button.addEventListener('click', () => choose(this.#beside[at])));
  }

  /** The last window of this kind that has ended, or of any other; undefined where none has. */
  async newest(slug, kind) {
    const ended = await this.#load(slug).catch(() => []);
    return ended.find((id) => parse(id).kind === kind) ?? ended[0];
  }

  /** Shows `board` chosen among the others, which are asked for if need be. `still()`: it is what is shown by then.
   * `window`: {starts, ends} in milliseconds where that is known; `zone`: in which its days are. */
  async show(board, { window, zone }, still) {
    const ended = await this.#load(parse(board).slug).catch(() => []);
    if (!still()) return;
    const ids = ended.includes(board) ? ended : inOrder([board, ...ended]);
    this.#select.replaceChildren(...groups(ids, board));
    const alike = ids.filter((id) => parse(id).kind === parse(board).kind); // the newest first
    this.#beside = [alike[alike.indexOf(board) + 1], alike[alike.indexOf(board) - 1]];
    this.#turns.forEach((button, at) => { button.disabled = !this.#beside[at]; });
    write(this.#days, windowDays(board, window, zone, this.#now()));
  }

  async #load(slug) {
    const known = this.#known.get(slug);
    if (known && this.#now() < known.until) return known.ended;
    const found = new Set();
    let until = Infinity;
    for (let all = 1, offset = 0; offset < Math.min(all, MOST); offset += PAGE) {
      const of = slug === 'default' ? '' : `&leaderboard=${encodeURIComponent(slug)}`;
      const page = await getJson(`boards?limit=${PAGE}&offset=${offset}${of}`);
      const now = Date.parse(page.now);
      all = page.closed_boards ?? page.closed_weeks ?? 0;
      if (slug === 'default') until = Math.min(until, weekEnd(weekAt(now)));
      for (const { board, closed, ends } of page.boards) {
        if (closed || (ends && Date.parse(ends) <= now)) found.add(board);
        else if (ends) until = Math.min(until, Date.parse(ends));
      }
    }
    const held = { ended: inOrder([...found]), until: until === Infinity ? this.#now() + AGAIN_MS : until };
    this.#known.set(slug, held);
    return held.ended;
  }
}

/** The newest first, of each kind; seasons as the server has them, for their ids tell no order. */
const inOrder = (ids) => ids.sort((a, b) => (parse(b).first ?? 0) - (parse(a).first ?? 0));

/** The options, by years; and by kinds where there are several, that of `board` first. */
function groups(ids, board) {
  const shown = parse(board).kind;
  const kinds = [shown, ...KINDS.filter((kind) => kind !== shown)];
  const isMixed = new Set(ids.map((id) => parse(id).kind)).size > 1;
  const all = new Map();
  for (const id of kinds.flatMap((kind) => ids.filter((one) => parse(one).kind === kind))) {
    const { kind } = parse(id);
    const label = [isMixed || yearOf(id) === null ? kindNames(kind) : null, yearOf(id)].filter((part) => part !== null).join(' ');
    if (!all.has(label)) all.set(label, Object.assign(document.createElement('optgroup'), { label }));
    all.get(label).append(new Option(windowName(id), id, false, id === board));
  }
  return all.values();
}
