// Owns how often one kind of thing is said aloud to those who do not see.

/** Limits how often one kind of thing is said aloud. */
export class Voice {
  #node; #last = new Map();
  constructor(node) { this.#node = node; }
  say(kind, words, now, everyMs = 0) {
    if (now - (this.#last.get(kind) ?? -Infinity) < everyMs) return;
    this.#last.set(kind, now);
    this.#node.textContent = words;
  }
}
