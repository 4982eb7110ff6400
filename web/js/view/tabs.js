// Owns the tabs of a tab list, by pointer and by keys (ARIA's pattern, chosen as soon as they have the focus).
// Never changes what is shown; tells `choose(tab)`, and is told which one is selected.

export class Tabs {
  #tabs; #choose;

  constructor(node, choose) {
    this.#tabs = [...node.querySelectorAll('[role=tab]')];
    this.#choose = choose;
    for (const tab of this.#tabs) {
      tab.addEventListener('click', () => { if (tab.getAttribute('aria-selected') !== 'true') this.#choose(tab); });
      tab.addEventListener('keydown', (event) => this.#step(tab, event));
    }
  }

  /** Only the selected one can be reached by the tab key. */
  select(id) {
    for (const tab of this.#tabs) {
      tab.setAttribute('aria-selected', tab.id === id);
      tab.tabIndex = tab.id === id ? 0 : -1;
    }
  }

  #step(tab, event) {
    const at = this.#tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = this.#tabs[(to + this.#tabs.length) % this.#tabs.length];
    next.focus();
    next.click();
  }
}
