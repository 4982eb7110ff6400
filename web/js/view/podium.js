// Owns the three steps. The steps never move; people do, and their ranks. Never decides who stands where.
import { coverWith } from './highlight.js';
import { isWrittenAlike, scoreText } from '../model/format.js';
import { write } from './text.js';

const LONG = 9; // characters of a score from which on it is set smaller: a step is no wider than 1,234,567
const CLIMB = { duration: 600, easing: 'cubic-bezier(.2,.7,.2,1)' };

function writeScore(text, leaderboard, score) {
  write(text, scoreText(leaderboard, score));
  text.parentNode.classList.toggle('long', text.textContent.length > LONG);
}

function person(entry, isMe, leaderboard) {
  const node = document.createElement('div');
  node.className = 'person';
  node.classList.toggle('is-me', isMe);
  const [name, bdi, score, text, plate] = ['span', 'bdi', 'span', 'span', 'span'].map((tag) => document.createElement(tag));
  name.className = 'name';
  bdi.textContent = entry.username;
  name.append(bdi);
  score.className = 'points';
  plate.className = 'plate';
  score.append(text, plate);
  writeScore(text, leaderboard, entry.score);
  node.append(name, score);
  return Object.assign(node, { user: entry.user_id, score: entry.score, text, plate });
}

function vacant() {
  const node = document.createElement('div');
  node.className = 'person open';
  const name = document.createElement('span');
  name.className = 'name';
  name.textContent = 'Open';
  node.append(name);
  return node;
}

export class Podium {
  #holders; #steps; #shown = []; #leaderboard;

  constructor(node) {
    [this.#holders, this.#steps] = ['holder', 'step'].map((part) => ['first', 'second', 'third'].map((place) => node.querySelector(`.${place} .${part}`)));
  }

  /** Nobody is known yet. */
  clear() {
    this.#shown = [];
    for (const holder of this.#holders) holder.replaceChildren();
    this.#number([]);
  }

  /** `ranks`: those of the entries; `leaderboard`: how scores are written. */
  paint(entries, { ranks, me, moving, marking, leaderboard }) {
    if (!isWrittenAlike(leaderboard, this.#leaderboard)) this.clear();
    this.#leaderboard = leaderboard;
    this.#number(ranks);
    const before = this.#shown;
    const climbs = moving && before.some(({ user }, at) => user !== (entries[at]?.user_id ?? null));
    const places = new Map(climbs ? before.map(({ user, node }) => [user, node.getBoundingClientRect()]) : []);
    this.#shown = this.#holders.map((holder, at) => this.#stand(holder, entries[at], before[at], me));
    if (!before.length) return;
    this.#shown.forEach(({ user, node, score }, at) => {
      const old = before[at];
      if (old.user !== user) {
        if (!climbs) return;
        if (user !== null) this.#climb(node, places.get(user));
        if (old.user !== null && !entries.slice(0, 3).some((entry) => entry.user_id === old.user)) this.#fade(this.#holders[at], old.node);
      } else if (marking && old.score !== score) this.#light(node);
    });
  }

  /** Who shares a rank stands on a step of that rank; one that nobody stands on has its own. */
  #number(ranks) {
    this.#steps.forEach((step, at) => {
      const rank = String(ranks[at] ?? at + 1);
      write(step, rank);
    });
  }

  #stand(holder, entry, old, me) {
    const user = entry?.user_id ?? null;
    if (old && user !== null && old.user === user) {
      const { node } = old;
      node.classList.toggle('is-me', user === me);
      write(node.querySelector('bdi'), entry.username);
      if (old.score !== entry.score) writeScore(node.text, this.#leaderboard, entry.score);
      return { user, node, score: entry.score };
    }
    if (old && user === null && old.user === null) return old;
    const node = entry ? person(entry, user === me, this.#leaderboard) : vacant();
    holder.replaceChildren(node);
    return { user, node, score: entry?.score };
  }

  #climb(node, from) {
    const to = node.getBoundingClientRect();
    const [x, y] = from ? [from.left - to.left, from.top - to.top] : [0, 60];
    node.animate({ transform: [`translate(${x}px, ${y}px)`, 'none'] }, CLIMB);
  }

  #fade(holder, node) {
    node.classList.add('leaving');
    holder.append(node);
    node.animate({ opacity: [1, 0] }, 500).finished.then(() => node.remove(), () => node.remove());
  }

  #light(node) {
    write(node.plate, node.text.textContent);
    coverWith([node.plate]);
  }
}
