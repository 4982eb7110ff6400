// Owns one question: which rows can stay where they are while the others move around them. Pure.

/** Positions of a longest increasing run in `places` (old places in new order, -1 for newcomers), as a Set. */
export function stayers(places) {
  const tails = []; // tails[k]: position in `places` where the best run of length k + 1 ends
  const before = new Array(places.length).fill(-1);
  places.forEach((place, at) => {
    if (place < 0) return;
    let low = 0;
    let high = tails.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[tails[middle]] < place) low = middle + 1;
      else high = middle;
    }
    before[at] = low ? tails[low - 1] : -1;
    tails[low] = at;
  });
  const run = new Set();
  for (let at = tails.length ? tails[tails.length - 1] : -1; at >= 0; at = before[at]) run.add(at);
  return run;
}
