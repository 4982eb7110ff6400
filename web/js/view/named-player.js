// Owns who is meant by a name in an address or attribute: the player who is called so as a whole, on the board that is shown.
// Looks among the players at hand first, then in the server's first 1,000. A player further down is found by number.
import { getJson } from '../server.js';
import { whole } from '../model/player-match.js';

const FIRST = 1_000;

export class NamedPlayer {
  #isAsked = false;

  constructor(name) { this.name = name; }

  /** Resolves with a user's number; null where nobody is called so. `server`: its address; `token`: for private boards. */
  async find(board, entries, server, token) {
    const among = (rows) => rows[whole(rows, this.name)]?.user_id ?? null;
    const here = among(entries);
    if (here !== null || this.#isAsked) return here;
    this.#isAsked = true; // who is not there now comes to the top 100 before long, or is asked for by number
    const page = await getJson(`boards/${encodeURIComponent(board)}?limit=${FIRST}`, server, token).catch(() => null);
    return among(page?.entries ?? []);
  }
}
