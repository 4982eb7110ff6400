// Owns how many players a board has. One that is not full shows them all; how many stand below a full one only the
// server knows: it is asked when the board fills, and now and then while the board goes on changing.
import { getJson } from '../server.js';
import { players } from '../model/format.js';
import { write } from './text.js';

const FULL = 100;
const AGAIN_MS = 30_000;

export class PlayerCount {
  #node; #of = null; #known = 0; #version = null; #askedAt = -Infinity;

  constructor(node) { this.#node = node; }

  /** Shows the count of `board`, null while none is known; `name` is what the server is asked for. */
  show(board, name, now) {
    if (board?.board !== this.#of) this.#forget(board?.board ?? null);
    const length = board?.entries.length ?? 0;
    if (length >= FULL && board.version !== this.#version && now - this.#askedAt >= AGAIN_MS) this.#ask(board, name, now);
    const words = board === null ? '' : players(length < FULL ? length : Math.max(length, this.#known));
    write(this.#node, words);
  }

  /** The server said it beside something else. */
  learn(count) { this.#known = count; }

  #forget(id) {
    this.#of = id;
    this.#known = 0;
    this.#version = null;
    this.#askedAt = -Infinity;
  }

  async #ask(board, name, now) {
    this.#askedAt = now;
    this.#version = board.version;
    const answer = await getJson(`boards/${encodeURIComponent(name)}?limit=1`).catch(() => null);
    if (!answer || board.board !== this.#of) return;
    this.#known = answer.players;
    write(this.#node, players(Math.max(board.entries.length, this.#known)));
  }
}
