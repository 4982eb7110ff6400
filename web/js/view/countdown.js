// Owns the clock on the wall: how long the window still runs, in digits. Never asks what time it is, and words nothing; is told both.
import { write } from './text.js';

const pad = (value) => String(value).padStart(2, '0');

export class Countdown {
  #node; #label; #wells; #digits;

  constructor(node) {
    this.#node = node;
    this.#label = node.querySelector('p');
    this.#wells = node.querySelector('.wells');
    this.#digits = [...node.querySelectorAll('b')];
  }

  /** Shows what `countdownOf` answered. */
  show({ label, isLastHour, isOver, left: { d, h, m, s } }) {
    this.#node.classList.toggle('last-hour', isLastHour);
    this.#wells.hidden = isOver;
    write(this.#label, label);
    [String(d), pad(h), pad(m), pad(s)].forEach((text, index) => write(this.#digits[index], text));
  }
}
