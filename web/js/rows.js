// Owns the rows of one list: keyed by user, moved rather than rebuilt, marked where they changed.
// Never reads a clock or the network, never measures single rows while it paints.
// Assumes a style sheet that gives all rows one height (or width, in a strip), and light or shadow DOM alike.
import { FLOOD } from './beat.js';
import { Movements } from './movements.js';
import { stayers } from './order.js';
import { amount, gain } from './words.js';

const RISE_MS = 480;
const FALL_MS = 360;
const BAR_MS = 420;
const GAIN_MS = 2400;
const EASING = 'cubic-bezier(.2,.7,.2,1)';
const REACH = 0.75; // a row never travels further than this share of the viewport
const MANY = 32; // more changed scores than this in a beat cannot be followed either

/** Shows a plate over a score for 900 ms, then wipes it upward: still until its last 180 ms, so that it costs nothing. */
export function light(plate, moving) {
  const shown = { visibility: 'visible', clipPath: 'inset(0 0 0 0)' };
  const last = moving ? { visibility: 'visible', clipPath: 'inset(0 0 100% 0)' } : shown;
  return plate.animate([shown, last], { delay: 900, duration: 180, fill: 'backwards' });
}

function part(tag, name, ...children) {
  const node = document.createElement(tag);
  node.className = name;
  node.setAttribute('part', name);
  node.append(...children);
  return node;
}

const unseen = (text) => {
  const node = document.createElement('span');
  node.className = 'vh';
  node.textContent = text;
  return node;
};

class Row {
  #texts = {};
  rank = NaN; score = NaN; name = null; mark = undefined; width = 0; before = 0; gained = 0; trip = null;

  constructor(user) {
    this.user = user;
    const text = (key) => (this.#texts[key] = document.createTextNode(''));
    this.bdi = document.createElement('bdi');
    this.bdi.append(text('name'));
    this.direction = unseen('');
    this.scoreCell = part('span', 'score', text('score'), unseen(' points'));
    this.change = part('span', 'change', this.direction, document.createElement('i'), text('change'));
    this.bar = part('i', 'bar');
    this.who = part('span', 'who', part('span', 'name', this.bdi));
    this.node = part('li', 'row', part('span', 'rank', text('rank')), this.who,
      this.scoreCell, this.change, this.bar);
    this.node.dataset.user = user;
  }

  /** Writes what differs; answers by how much the score changed. */
  write(entry, rank, mark, leader) {
    if (rank !== this.rank) this.#texts.rank.data = amount(this.rank = rank);
    if (entry.username !== this.name) this.#texts.name.data = this.bdi.title = this.name = entry.username;
    this.setMark(mark);
    const width = leader > 0 ? Math.max(0, Math.round((entry.score / leader) * 500) / 500) : 0;
    this.before = this.width;
    if (width !== this.width) this.bar.style.transform = `scaleX(${(this.width = width)})`;
    const by = entry.score - this.score;
    if (by !== 0) this.#texts.score.data = amount(this.score = entry.score);
    return by || 0;
  }

  setMark(mark) {
    if (mark === this.mark) return;
    this.mark = mark;
    const kind = mark === 'new' ? 'new' : mark > 0 ? 'up' : mark < 0 ? 'down' : '';
    this.change.dataset.kind = kind;
    this.direction.textContent = kind === 'up' || kind === 'down' ? `${kind} ` : '';
    this.#texts.change.data = kind === 'new' ? 'NEW' : kind ? amount(Math.abs(mark)) : '';
  }

  setMe(isMe) {
    if (this.node.classList.contains('me') === isMe) return;
    this.node.classList.toggle('me', isMe);
    if (isMe) this.who.append(part('span', 'you', 'You'));
    else this.who.lastChild.remove();
  }

  /** Most rows are never lit: their plate and gain are made when they are first needed. */
  #kindle() {
    const silent = (name) => {
      const node = part('span', name, (this.#texts[name] = document.createTextNode('')));
      node.setAttribute('aria-hidden', 'true');
      return node;
    };
    this.scoreCell.append((this.plate = silent('plate')));
    this.node.append((this.gain = silent('gain')));
  }

  /** The score changed: a plate covers it for a moment. Where there is room, the gain stands beside it. */
  light(by, moving) {
    if (moving && this.before !== this.width) {
      this.bar.animate({ transform: [`scaleX(${this.before})`, `scaleX(${this.width})`] }, { duration: BAR_MS, easing: EASING });
    }
    if (!this.plate) this.#kindle();
    this.#texts.plate.data = this.#texts.score.data;
    this.plating?.cancel();
    this.plating = light(this.plate, moving);
    this.gained = this.gaining?.playState === 'running' ? this.gained + by : by;
    this.#texts.gain.data = gain(this.gained);
    this.gaining?.cancel();
    this.gaining = this.gain.animate({ visibility: ['visible', 'visible'] }, { delay: GAIN_MS, duration: 1, fill: 'backwards' });
  }

  /** Starts `pixels` from its new place and comes home; where it was still on its way, it goes on from there. */
  travel(pixels, axis, ms, lifted) {
    const left = this.trip?.playState === 'running' ? this.trip.from * (1 - this.trip.effect.getComputedTiming().progress) : 0;
    const from = left + pixels;
    const old = this.trip;
    const move = axis === 'x' ? 'translateX' : 'translateY';
    this.trip = this.node.animate({ transform: [`${move}(${from}px)`, `${move}(0)`] }, { duration: ms, easing: EASING });
    this.trip.from = from;
    old?.cancel();
    this.node.classList.toggle('rising', lifted);
    this.trip.onfinish = () => { this.trip = null; this.node.classList.remove('rising'); };
  }
}

export class Rows {
  #list; #rows = new Map(); #order = []; #movements = new Movements(); #pitch = 0; #axis; #covered; #limit;

  /** `covered()`: how many rows at the top take no room. `limit()`: how many rows there may be. */
  constructor(list, { axis = 'y', covered = () => 0, limit = () => Infinity } = {}) {
    this.#list = list;
    this.#axis = axis;
    this.#covered = covered;
    this.#limit = limit;
    new ResizeObserver(() => { this.#pitch = 0; }).observe(list);
  }

  /** The node of a user's row, or undefined. */
  node(user) { return this.#rows.get(user)?.node; }

  /** Another board is shown. */
  clear() {
    this.#rows.clear();
    this.#order = [];
    this.#movements.forget();
    this.#list.replaceChildren();
  }

  /**
   * Shows entries in board order with their ranks. `moving`: whether rows may move; `marking`: whether changed scores
   * are lit; `field`: everybody whose rank is known, where more are known than shown. Answers how many climbed in sight.
   */
  paint(all, ranks, { now, me = null, moving = true, marking = true, field = { entries: all, ranks } }) {
    const entries = all.length > this.#limit() ? all.slice(0, this.#limit()) : all;
    const first = !this.#order.length;
    const was = new Map(this.#order.map((user, at) => [user, at]));
    const places = entries.map(({ user_id }) => was.get(user_id) ?? -1);
    const view = this.#view(first);
    const stay = stayers(places);
    const moves = first ? [] : this.#moves(places, stay, view);
    const climbers = moves.filter(({ mover }) => mover).length; // the others only make room
    const flood = climbers > FLOOD;
    const marks = this.#movements.note(new Map(field.entries.map(({ user_id }, at) => [user_id, field.ranks[at]])), now);
    const changed = this.#write(entries, ranks, me, marks);
    this.#arrange(entries, stay);
    this.#order = entries.map(({ user_id }) => user_id);
    if (first || !marking) return 0;
    const few = flood || changed.length > MANY;
    for (const [row, by, at] of changed) {
      if (few ? at < 3 || row.user === me : at >= view.first && at <= view.last) row.light(by, moving);
    }
    if (moving) this.#travel(moves, entries, flood, view);
    return few ? FLOOD + 1 : climbers;
  }

  /** Marks that are too old go, without a change of the board. */
  settle(now) {
    const marks = this.#movements.marks(now);
    for (const row of this.#rows.values()) row.setMark(marks.get(row.user));
  }

  #write(entries, ranks, me, marks) {
    const leader = entries[0]?.score ?? 0;
    const changed = [];
    const kept = new Map();
    entries.forEach((entry, at) => {
      const user = entry.user_id;
      const row = this.#rows.get(user) ?? new Row(user);
      const known = !Number.isNaN(row.score);
      const by = row.write(entry, ranks[at], marks.get(user), leader);
      row.setMe(user === me);
      if (known && by) changed.push([row, by, at]);
      kept.set(user, row);
    });
    for (const [user, row] of this.#rows) if (!kept.has(user)) row.node.remove();
    this.#rows = kept;
    return changed;
  }

  #arrange(entries, stay) {
    const focused = this.#list.getRootNode().activeElement;
    let next = null;
    for (let at = entries.length - 1; at >= 0; at -= 1) {
      const { node } = this.#rows.get(entries[at].user_id);
      if (!stay.has(at)) this.#list.insertBefore(node, next);
      next = node;
    }
    if (focused && this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** The positions on screen, from one measurement of the list before anything is written. */
  #view(first) {
    if (first) return { first: 0, last: Infinity, extent: 0 };
    this.#pitch ||= this.#measure();
    const box = this.#list.getBoundingClientRect();
    const [start, extent] = this.#axis === 'x' ? [box.left, innerWidth] : [box.top, innerHeight];
    const covered = this.#covered();
    return {
      first: Math.floor(-start / this.#pitch) + covered,
      last: Math.ceil((extent - start) / this.#pitch) + covered,
      extent,
    };
  }

  #measure() {
    const [a, b] = [this.#list.lastElementChild?.previousElementSibling, this.#list.lastElementChild];
    if (!b) return 44;
    const size = this.#axis === 'x' ? 'offsetWidth' : 'offsetHeight';
    const start = this.#axis === 'x' ? 'offsetLeft' : 'offsetTop';
    return this.#order.length - this.#covered() > 1 && a ? b[start] - a[start] || b[size] : b[size] || 44;
  }

  #moves(places, stay, { first, last }) {
    const moves = [];
    const newest = this.#order.length;
    places.forEach((old, at) => {
      const from = old < 0 ? newest : old;
      const low = Math.min(from, at);
      const high = Math.max(from, at);
      if (from !== at && low <= last && high >= first) moves.push({ at, by: from - at, mover: !stay.has(at), isNew: old < 0 });
    });
    return moves;
  }

  #travel(moves, entries, flood, { extent }) {
    const most = extent * REACH;
    for (const { at, by, mover, isNew } of moves) {
      const pixels = Math.max(-most, Math.min(most, by * this.#pitch));
      const rising = by > 0;
      const ms = flood || !rising ? FALL_MS : RISE_MS;
      this.#rows.get(entries[at].user_id).travel(pixels, this.#axis, ms, rising && mover && !flood && !isNew);
    }
  }
}
