// Owns the tabs of a tab list, by pointer and by keys (ARIA's pattern, chosen as soon as they have the focus).
// Never changes what is shown; tells `choose(tab)`, and is told which tabs there are and which one is selected.

export class Tabs {
  #node; #tabs; #choose;

  constructor(node, choose) {
    this.#node = node;
    this.#tabs = [...node.querySelectorAll('[role=tab]')];
    this.#choose = choose;
    node.addEventListener('click', ({ target }) => {
      if (this.#tabs.includes(target) && target.getAttribute('aria-selected') !== 'true') this.#choose(target);
    });
    node.addEventListener('keydown', (event) => this.#step(event));
  }

  /** Shows tabs of {id, board, words}, the one of this id selected. Only that one can be reached by the tab key. */
  show(tabs, id) {
    const isSame = tabs.length === this.#tabs.length && tabs.every((tab, at) => this.#shows(this.#tabs[at], tab));
    if (!isSame) this.#node.replaceChildren(...(this.#tabs = tabs.map(button)));
    for (const tab of this.#tabs) {
      tab.setAttribute('aria-selected', tab.id === id);
      tab.tabIndex = tab.id === id ? 0 : -1;
    }
  }

  #shows(node, { id, board, words }) { return node.id === id && node.dataset.board === (board ?? '') && node.textContent === words; }

  #step(event) {
    const at = this.#tabs.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = this.#tabs[(to + this.#tabs.length) % this.#tabs.length];
    next.focus();
    next.click();
  }
}

function button({ id, board, words }) {
  const node = document.createElement('button');
  Object.assign(node, { type: 'button', id, textContent: words });
  node.setAttribute('role', 'tab');
  node.setAttribute('aria-controls', 'panel');
  node.dataset.board = board ?? '';
  return node;
}
