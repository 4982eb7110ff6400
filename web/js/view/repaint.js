// Owns when to paint: at once after a quiet time, then at most once an interval, never while nobody sees it.
// Never knows what is painted. Assumes `paint(still)` answers how many rows were seen to move, or null where there was
// nothing to paint yet: that uses up no interval.

const INTERVAL_MS = 250;
const FLOOD_INTERVAL_MS = 1000;
export const FLOOD = 12; // more visible moves than this in one interval cannot be followed by eye

const browserTime = {
  now: () => performance.now(),
  set: (call, ms) => setTimeout(call, ms),
  frame: (call) => requestAnimationFrame(call),
};

export class Repaint {
  #paint; #time; #asked = false; #due = 0; #hidden = false; #still = false;

  constructor(paint, time = browserTime) {
    this.#paint = paint;
    this.#time = time;
  }

  /** Something changed; `still` asks for a paint without movement. */
  ask(still = false) {
    this.#still ||= still;
    if (this.#asked || this.#hidden) { this.#asked = true; return; }
    this.#asked = true;
    const wait = this.#due - this.#time.now();
    if (wait > 0) this.#time.set(() => this.#time.frame(() => this.#run()), wait);
    else this.#time.frame(() => this.#run());
  }

  /** Paints in this very turn: the first board keeps nobody waiting. */
  now() {
    this.#asked = true;
    this.#run();
  }

  /** While hidden only the model moves; then one paint without movement shows where it is. */
  hide(hidden) {
    if (hidden === this.#hidden) return;
    this.#hidden = hidden;
    if (hidden) return;
    this.#asked = false;
    this.ask(true);
  }

  #run() {
    if (!this.#asked || this.#hidden) return;
    this.#asked = false;
    const still = this.#still;
    this.#still = false;
    const moved = this.#paint(still);
    if (moved === null) return;
    this.#due = this.#time.now() + (moved > FLOOD ? FLOOD_INTERVAL_MS : INTERVAL_MS);
  }
}
