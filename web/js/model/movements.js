// Owns what the marks beside the scores say: each player's net movement since it began to move.
// Never touches the DOM or a clock. Assumes that it is told every painted board, in order.

const KEPT_MS = 60_000; // a mark goes this long after the last move

export class Movements {
  #ranks = null;
  #marks = new Map();

  /** Takes the next painted board: ranks by user. Answers the marks: user -> 'new' or places won (negative: lost). */
  note(ranks, now) {
    if (this.#ranks) for (const [user, rank] of ranks) this.#move(user, this.#ranks.get(user), rank, now);
    this.#ranks = ranks;
    return this.marks(now);
  }

  #move(user, before, rank, now) {
    if (before === rank) return;
    const mark = this.#marks.get(user) ?? { from: before ?? null };
    this.#marks.set(user, { from: mark.from, at: now });
  }

  marks(now) {
    const shown = new Map();
    for (const [user, { from, at }] of this.#marks) {
      const rank = this.#ranks.get(user);
      if (rank === undefined || now - at >= KEPT_MS) this.#marks.delete(user);
      else if (from === null) shown.set(user, 'new');
      else if (from !== rank) shown.set(user, from - rank);
    }
    return shown;
  }

  /** Another board is shown: nothing has moved yet. */
  forget() {
    this.#ranks = null;
    this.#marks.clear();
  }
}
