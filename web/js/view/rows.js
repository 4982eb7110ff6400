// Owns the rows of one list: keyed by user, moved rather than rebuilt, marked where they changed.
// Never reads a clock or the network, never measures single rows while it paints.
// Assumes a style sheet that gives all rows one height (or width, in a strip), and light or shadow DOM alike.
import { FLOOD } from './repaint.js';
import { Movements } from '../model/movements.js';
import { stayers } from '../model/reorder.js';
import { coverWith, showGains } from './highlight.js';
import { amount, gainText, isWrittenAlike, metadataWords, scoreText, share, unitWords } from '../model/format.js';

const RISE_MS = 480;
const FALL_MS = 360;
const BAR_MS = 420;
const SEEN = 0.01; // share of a row's width
const EASING = 'cubic-bezier(.2,.7,.2,1)';
const REACH = 0.75; // a row never travels further than this share of the viewport
const MANY = 32; // more changed scores than this in one paint cannot be followed either

function part(tag, name, ...children) {
  const node = document.createElement(tag);
  node.className = name;
  node.setAttribute('part', name);
  node.append(...children);
  return node;
}

const text = () => document.createTextNode('');

function unseen(...children) {
  const node = document.createElement('span');
  node.className = 'vh';
  node.append(...children);
  return node;
}

/** A row without a player, once there is a page. Copying it is several times faster than building each. */
let blank;

function build() {
  const row = part('li', 'row',
    part('span', 'rank', text()),
    part('span', 'who', part('span', 'name', document.createElement('bdi'))),
    part('span', 'score', text(), unseen(text())),
    part('span', 'change', unseen(text()), document.createElement('i'), text()),
    part('i', 'bar'));
  row.querySelector('bdi').append(text());
  return row;
}

class Row {
  rank = NaN; score = NaN; name = null; mark = undefined; width = 0; gained = 0; trip = null; metadata = '';

  constructor(user, leaderboard) {
    this.user = user;
    this.leaderboard = leaderboard;
    this.node = (blank ??= build()).cloneNode(true);
    this.node.dataset.user = user;
    [this.rankCell, this.who, this.scoreCell, this.change, this.bar] = this.node.children;
    this.bdi = this.who.firstChild.firstChild;
    this.scoreCell.lastChild.firstChild.data = unitWords(leaderboard);
  }

  /** Writes what differs; answers by how much the score changed. */
  write(entry, rank) {
    if (rank !== this.rank) this.rankCell.firstChild.data = amount(this.rank = rank);
    if (entry.username !== this.name) this.bdi.firstChild.data = this.bdi.title = this.name = entry.username;
    const by = entry.score - this.score;
    if (by !== 0) this.scoreCell.firstChild.data = scoreText(this.leaderboard, this.score = entry.score);
    if (entry.metadata || this.metadata) this.writeMetadata(metadataWords(entry.metadata));
    return by || 0;
  }

  /** What the submission carried stands beside the name, or below it; most leaderboards show nothing there. */
  writeMetadata(words) {
    if (words === this.metadata) return;
    this.metadata = words;
    if (!this.meta) this.who.firstChild.after(this.meta = part('span', 'meta', text()));
    this.meta.firstChild.data = this.meta.title = words;
    this.meta.hidden = words === '';
    this.who.classList.toggle('has-meta', words !== '');
  }

  /** Draws the bar as long as the score's share of the leader's. A change that the eye would miss is not animated. */
  setBar(share, moving) {
    const width = Math.round(share * 500) / 500;
    if (width === this.width) return;
    const [before, after] = [`scaleX(${this.width})`, `scaleX(${width})`];
    if (moving && Math.abs(width - this.width) >= SEEN) {
      this.bar.animate({ transform: [before, after] }, { duration: BAR_MS, easing: EASING });
    }
    this.bar.style.transform = after;
    this.width = width;
  }

  setMark(mark) {
    if (mark === this.mark) return;
    this.mark = mark;
    const kind = mark === 'new' ? 'new' : mark > 0 ? 'up' : mark < 0 ? 'down' : '';
    this.change.dataset.kind = kind;
    this.change.firstChild.firstChild.data = kind === 'up' || kind === 'down' ? `${kind} ` : '';
    this.change.lastChild.data = kind === 'new' ? 'NEW' : kind ? amount(Math.abs(mark)) : '';
  }

  /** Marks the player who is followed; `isYou`: who is the viewer, too. */
  setMe(isMe, isYou) {
    if (this.node.classList.contains('me') === isMe) return;
    this.node.classList.toggle('me', isMe);
    if (isMe) this.node.setAttribute('aria-current', 'true');
    else this.node.removeAttribute('aria-current');
    if (isMe && isYou) this.who.append(part('span', 'you', 'You'));
    else this.who.querySelector('.you')?.remove();
  }

  /** Makes what shines ready: a plate for the score, and the gain beside it. Most rows never need them. */
  kindle(by) {
    if (!this.plate) {
      const silent = (name) => {
        const node = part('span', name, text());
        node.setAttribute('aria-hidden', 'true');
        return node;
      };
      this.scoreCell.append((this.plate = silent('plate')));
      this.node.append((this.gain = silent('gain')));
    }
    this.plate.firstChild.data = this.scoreCell.firstChild.data;
    this.gained = this.gain.classList.contains('lit') ? this.gained + by : by;
    this.gain.firstChild.data = gainText(this.leaderboard, this.gained);
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
  #list; #rows = new Map(); #order = []; #movements = new Movements(); #pitch = 0; #axis; #covered; #limit; #owed = null; #leaderboard;

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
    this.#owed = null;
    this.#movements.forget();
    this.#list.replaceChildren();
  }

  /**
   * Shows entries in board order with their ranks. `moving`: whether rows may move; `marking`: whether changed scores
   * are lit; `me` is followed, `isYou` by themselves; `field`: everybody whose rank is known, where more are known than shown; `leaderboard`: how scores are written.
   * Answers how many climbed in sight.
   */
  paint(all, ranks, { now, me = null, isYou = true, moving = true, marking = true, field = { entries: all, ranks }, leaderboard }) {
    if (!isWrittenAlike(leaderboard, this.#leaderboard)) this.clear();
    this.#leaderboard = leaderboard;
    const entries = all.length > this.#limit() ? all.slice(0, this.#limit()) : all;
    const first = !this.#order.length;
    const was = new Map(this.#order.map((user, at) => [user, at]));
    const places = entries.map(({ user_id }) => was.get(user_id) ?? -1);
    const view = this.#view(first);
    const stay = stayers(places);
    const moves = first ? [] : this.#moves(places, stay, view);
    const climbers = moves.filter(({ mover }) => mover).length; // the others only make room
    const flood = climbers > FLOOD;
    const changed = this.#write(entries, ranks, me, isYou);
    this.#arrange(entries, stay);
    this.#order = entries.map(({ user_id }) => user_id);
    const marks = this.#movements.note(new Map(field.entries.map(({ user_id }, at) => [user_id, field.ranks[at]])), now);
    const few = flood || changed.length > MANY;
    const dress = () => {
      this.#dress(marks, moving && !first && !few);
      if (first || !marking) return;
      const lit = changed.filter(([row, , at]) => (few ? at < 3 || row.user === me : at >= view.first && at <= view.last));
      for (const [row, by] of lit) row.kindle(by);
      coverWith(lit.map(([row]) => row.plate));
      showGains(lit.map(([row]) => row.gain));
    };
    if (first) dress();
    else this.#after(dress);
    if (first || !marking) return 0;
    if (moving) this.#travel(moves, entries, flood, view);
    return few ? FLOOD + 1 : climbers;
  }

  /** What need not be in the frame that moves the rows comes in the next one: two short tasks instead of a long one. */
  #after(dress) {
    const owed = this.#owed;
    this.#owed = dress;
    if (owed) owed(); // its frame has not come yet
    else requestAnimationFrame(() => { this.#owed?.(); this.#owed = null; });
  }

  #dress(marks, moving) {
    const leader = this.#rows.get(this.#order[0])?.score ?? 0;
    for (const row of this.#rows.values()) {
      row.setMark(marks.get(row.user));
      row.setBar(share(this.#leaderboard, row.score, leader), moving);
    }
  }

  /** Marks that are too old go, without a change of the board. */
  settle(now) {
    const marks = this.#movements.marks(now);
    for (const row of this.#rows.values()) row.setMark(marks.get(row.user));
  }

  #write(entries, ranks, me, isYou) {
    const changed = [];
    const kept = new Map();
    entries.forEach((entry, at) => {
      const user = entry.user_id;
      const row = this.#rows.get(user) ?? new Row(user, this.#leaderboard);
      const known = !Number.isNaN(row.score);
      const by = row.write(entry, ranks[at]);
      row.setMe(user === me, isYou);
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
