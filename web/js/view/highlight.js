// Owns how long things shine: what changes is lit at once and goes out by itself. Never knows what it lights.
// Assumes a style sheet that shows `.lit` and hides the rest. Nothing is animated while it shines, so that shining is free:
// an animation that only waits still costs every frame.

const LIT_MS = 900;
const GAIN_MS = 2400;
const WIPE_MS = 180;
const WIPED = 6; // more plates than this at once just go: nobody sees so many wiped, and each is painted anew each frame

/** Lights nodes together; together they go out, but for those that were lit again meanwhile. */
function shine(nodes, ms, wiping) {
  const turn = Symbol('turn');
  for (const node of nodes) {
    node.wipe?.cancel();
    node.turn = turn;
    node.classList.add('lit');
  }
  setTimeout(() => {
    const left = nodes.filter((node) => node.turn === turn);
    for (const node of left) if (wiping && left.length <= WIPED) wipe(node); else node.classList.remove('lit');
  }, ms);
}

function wipe(node) {
  node.wipe = node.animate({ clipPath: ['inset(0 0 0 0)', 'inset(0 0 100% 0)'] }, WIPE_MS);
  node.wipe.onfinish = () => { node.wipe = null; node.classList.remove('lit'); };
}

/** Plates cover the scores that changed; `moving`: they may be wiped away. */
export const coverWith = (plates, moving) => shine(plates, LIT_MS, moving);

/** Gains stand beside the scores for longer. */
export const showGains = (gains) => shine(gains, GAIN_MS, false);
