// Owns invented players for the preview of an overlay. Looks like the client where the overlay uses it.
import { now } from '../model/clock.js';
import { weekAt } from '../model/format.js';

const NAMES = ['Amélie Roux', 'Bosun', 'Kestrel', 'Ivo Haddad', 'Maren Lind', 'Tarn', 'Juno Okafor', 'Pax', 'Lumi Sato', 'Wren',
  'Sable', 'Rook Varga', 'Nils', 'Astrid Kaya', 'Quill', 'Vesper', 'Onyx Nowak', 'Birch', 'Fjord', 'Oskar Silva'];
const EVERY_MS = 1700;

export class Sample {
  state = 'live'; stale = false; retryAt = null; heardAt = now();
  #scores = NAMES.map((username, at) => ({ user_id: at + 1, username, score: Math.round(42_800 * 0.93 ** at) }));
  #version = 1;

  now() { return now(); }
  on() { return () => {}; }
  watch() { return () => {}; }

  subscribe(board, listener) {
    const monday = new Date(weekAt(this.now())).toISOString().slice(0, 10).replaceAll('-', '_');
    const id = board === 'current_week' ? `week_of_${monday}` : board;
    const send = () => listener(this.#board(id), { type: 'snapshot' });
    queueMicrotask(send);
    setInterval(() => { this.#play(); send(); }, EVERY_MS);
    return () => {};
  }

  #play() {
    const at = 1 + Math.floor(Math.random() * (this.#scores.length - 1));
    const above = this.#scores[Math.max(0, at - 1 - Math.floor(Math.random() * 3))].score;
    const { score, ...who } = this.#scores[at];
    const gained = Math.random() < 0.6 ? Math.max(40, above - score + 20) : 120;
    this.#scores[at] = { ...who, score: score + gained };
    this.#scores.sort((a, b) => b.score - a.score);
    this.#version += 1;
  }

  #board(board) {
    return { board, epoch: 'sample', version: this.#version, entries: this.#scores.slice() };
  }
}
