// Owns the choice among earlier weeks: which ones are closed, as the server tells, and the picker that names them.
// Never changes what is shown; tells `choose(board)`. Asks anew once a week has ended, however long the page slept.
import { getJson } from '../server.js';
import { weekAt, weekDays, weekName, weekStart, weekYear } from '../model/format.js';

const PAGE = 1000;

export class WeekPicker {
  #select; #days; #now; #ended = []; #during = null; // ids, newest first; the week during which the server told them

  /** `now()`: the server's time, in milliseconds since 1970. */
  constructor(node, now, choose) {
    this.#select = node.querySelector('select');
    this.#days = node.querySelector('p');
    this.#now = now;
    this.#select.addEventListener('change', () => choose(this.#select.value));
  }

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
    if (this.#during === weekAt(this.#now())) return this.#ended;
    const found = new Set();
    let week;
    for (let closed = 1, offset = 0; offset < closed; offset += PAGE) {
      const page = await getJson(`boards?limit=${PAGE}&offset=${offset}`);
      closed = page.closed_weeks ?? 0;
      week = weekAt(Date.parse(page.now));
      for (const { board: id } of page.boards) if (weekStart(id) !== null && weekStart(id) < week) found.add(id);
    }
    this.#during = week;
    return (this.#ended = [...found].sort().reverse());
  }
}
