// Owns the clock on the wall: how long the week still runs. Never asks what time it is; is told.
// At zero it says that the week is closing; only the server ends it.
import { remaining, weekEnd, weekName } from '../model/format.js';

const HOUR = 3_600_000;
const FINAL_MS = 60_000; // how long "is final" stays

const pad = (value) => String(value).padStart(2, '0');

export class Countdown {
  #node; #label; #wells; #ended = null; #said = '';

  constructor(node) {
    this.#node = node;
    this.#label = node.querySelector('p');
    this.#wells = [...node.querySelectorAll('b')];
  }

  /** The server ended a week. Answers the sentence that says so. */
  rollover(from, to, now) {
    this.#ended = { until: now + FINAL_MS, words: `${weekName(from)} is final. ${weekName(to)} has started.` };
    return this.#ended.words;
  }

  tick(start, now) {
    const left = weekEnd(start) - now;
    const final = this.#ended && now < this.#ended.until;
    this.#node.classList.toggle('last-hour', left > 0 && left <= HOUR);
    this.#node.querySelector('.wells').hidden = left <= 0;
    this.#say(final ? this.#ended.words : left > 0 ? `${weekName(start)} ends in` : `${weekName(start)} is closing`);
    const { d, h, m, s } = remaining(left);
    [d, pad(h), pad(m), pad(s)].forEach((value, at) => {
      const text = String(value);
      if (this.#wells[at].textContent !== text) this.#wells[at].textContent = text;
    });
  }

  #say(words) {
    if (words !== this.#said) this.#label.textContent = this.#said = words;
  }
}
