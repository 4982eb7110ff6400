// Owns the choice among leaderboards. Never changes what is shown; tells `choose(slug)`, and is told which one is shown.
// Assumes a box with a select in it; the box is hidden where there is nothing to choose.

export class Chooser {
  #box; #select; #shown = '';

  constructor(box, choose) {
    this.#box = box;
    this.#select = box.querySelector('select');
    this.#select.addEventListener('change', () => choose(this.#select.value));
  }

  /** Shows {slug, title} of each, with `slug` chosen. Answers whether there is a choice. */
  show(leaderboards, slug) {
    const shown = JSON.stringify(leaderboards);
    if (shown !== this.#shown) {
      this.#select.replaceChildren(...leaderboards.map((one) => new Option(one.title, one.slug)));
      this.#shown = shown;
    }
    this.#select.value = slug; // of one that is not listed: none
    this.#box.hidden = leaderboards.length === 0;
    return leaderboards.length > 0;
  }
}
