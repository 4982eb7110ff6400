// Owns the choice among earlier weeks: which ones are closed, as the server tells, and the picker that names them.
// Never changes what is shown; tells `choose(board)`. Assumes that it is told when a week has ended.
import { getJson } from './here.js';
import { weekDays, weekName, weekStart, weekYear } from './words.js';

const PAGE = 1000;

export class Weeks {
  #select; #days; #now; #closed = null; // ids, newest first; null: to be asked for

  /** `now()`: the server's time, in milliseconds since 1970. */
  constructor(node, now, choose) {
    this.#select = node.querySelector('select');
    this.#days = node.querySelector('p');
    this.#now = now;
    this.#select.addEventListener('change', () => choose(this.#select.value));
  }

  /** A week has ended since. */
  forget() { this.#closed = null; }

  /** The last week that has ended, or undefined. */
  async newest() { return (await this.#load().catch(() => []))[0]; }

  /** Shows `board` chosen among the others, which are asked for if need be. `still()`: it is what is shown by then. */
  async show(board, still) {
    const closed = await this.#load().catch(() => []);
    if (!still()) return;
    const ids = closed.includes(board) ? closed : [board, ...closed].sort().reverse();
    const years = new Map();
    for (const id of ids) {
      const year = weekYear(weekStart(id));
      if (!years.has(year)) years.set(year, Object.assign(document.createElement('optgroup'), { label: year }));
      years.get(year).append(new Option(weekName(weekStart(id)), id, false, id === board));
    }
    this.#select.replaceChildren(...years.values());
    this.#days.textContent = weekDays(weekStart(board), this.#now());
  }

  async #load() {
    const found = new Set();
    for (let closed = 1, offset = 0; this.#closed === null && offset < closed; offset += PAGE) {
      const page = await getJson(`boards?limit=${PAGE}&offset=${offset}`);
      closed = page.closed_weeks ?? 0;
      for (const { board: id, closed: over } of page.boards) if (over && weekStart(id) !== null) found.add(id);
    }
    return (this.#closed ??= [...found].sort().reverse());
  }
}
