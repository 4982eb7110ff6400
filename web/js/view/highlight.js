// Owns how long things shine: what changes is lit at once and goes out by itself. Never knows what it lights.
// Assumes a style sheet that shows `.lit` and hides the rest. Nothing is animated, while it shines or when it goes: what is half
// gone cannot be read.

const LIT_MS = 900;
const GAIN_MS = 2400;

/** Lights nodes together; together they go out, but for those that were lit again meanwhile. */
function shine(nodes, ms) {
  const turn = Symbol('turn');
  for (const node of nodes) {
    node.turn = turn;
    node.classList.add('lit');
  }
  setTimeout(() => { for (const node of nodes) if (node.turn === turn) node.classList.remove('lit'); }, ms);
}

/** Plates cover the scores that changed. */
export const coverWith = (plates) => shine(plates, LIT_MS);

/** Gains stand beside the scores for longer. */
export const showGains = (gains) => shine(gains, GAIN_MS);
