// Owns invented players for the preview of an overlay. Looks like the client where the overlay uses it.
// Asks the server for nothing but how a leaderboard writes its scores.
import { now } from '../model/clock.js';
import { weekAt, weekEnd } from '../model/format.js';
import { readLeaderboard } from '../model/leaderboards.js';
import { parse } from '../model/windows.js';
import { getJson } from '../server.js';

const NAMES = ['Amélie Roux', 'Bosun', 'Kestrel', 'Ivo Haddad', 'Maren Lind', 'Tarn', 'Juno Okafor', 'Pax', 'Lumi Sato', 'Wren',
  'Sable', 'Rook Varga', 'Nils', 'Astrid Kaya', 'Quill', 'Vesper', 'Onyx Nowak', 'Birch', 'Fjord', 'Oskar Silva'];
const EVERY_MS = 1700;
const DAY_MS = 86_400_000;

export class Sample {
  state = 'live'; stale = false; retryAt = null; heardAt = now();
  #scores = []; #version = 1; #leaderboard; #unit = 1;

  now() { return now(); }
  on() { return () => {}; }
  watch() { return () => {}; }

  subscribe(board, listener) {
    const { slug } = parse(board);
    const listed = slug === 'default' ? Promise.resolve() : getJson(`leaderboards/${encodeURIComponent(slug)}`).then(readLeaderboard, () => undefined);
    listed.then((leaderboard) => {
      this.#begin(leaderboard);
      const send = () => listener(this.#board(board), { type: 'snapshot' });
      send();
      setInterval(() => { this.#play(); send(); }, EVERY_MS);
    });
    return () => {};
  }

  get #isAscending() { return this.#leaderboard?.order === 'ascending'; }

  #begin(leaderboard) {
    this.#leaderboard = leaderboard;
    const { kind, unit, places = 0 } = leaderboard?.format ?? {};
    this.#unit = kind === 'duration' ? (unit === 'ms' ? 1000 : 1) : 10 ** places;
    const score = (at) => Math.round(this.#isAscending ? 61.234 * this.#unit * 1.02 ** at : 42_800 * this.#unit * 0.93 ** at);
    this.#scores = NAMES.map((username, at) => ({ user_id: at + 1, username, score: score(at) }));
  }

  #play() {
    const at = 1 + Math.floor(Math.random() * (this.#scores.length - 1));
    const above = this.#scores[Math.max(0, at - 1 - Math.floor(Math.random() * 3))].score;
    const { score, ...who } = this.#scores[at];
    const turn = this.#isAscending ? -1 : 1;
    const [much, little] = this.#isAscending ? [0.1, 0.2] : [20, 120];
    const gained = Math.random() < 0.6 ? Math.max(2 * much * this.#unit, turn * (above - score) + much * this.#unit) : little * this.#unit;
    this.#scores[at] = { ...who, score: Math.max(1, score + turn * Math.round(gained)) };
    this.#scores.sort((a, b) => turn * (b.score - a.score));
    this.#version += 1;
  }

  #board(asked) {
    const { slug, kind, which } = parse(asked);
    const monday = new Date(weekAt(this.now())).toISOString().slice(0, 10).replaceAll('-', '_');
    const board = slug === 'default' && kind === 'week' && which === 'current' ? `week_of_${monday}` : asked;
    const ends = which === 'current' ? new Date(this.#ends(kind)).toISOString() : null;
    const window = slug === 'default' && kind === 'week' ? undefined : { kind, starts: null, ends };
    return { board, epoch: 'sample', version: this.#version, entries: this.#scores.slice(), leaderboard: this.#leaderboard, window };
  }

  /** About when such a window ends. */
  #ends(kind) {
    const at = this.now();
    return kind === 'week' ? weekEnd(weekAt(at)) : (Math.floor(at / DAY_MS) + ({ day: 1, month: 12, season: 40, year: 120 }[kind] ?? 1)) * DAY_MS;
  }
}
