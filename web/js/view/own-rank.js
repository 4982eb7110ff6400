// Owns the bar of the player who is followed: rank, name, distance to the next rank, score.
// Never asks for a rank itself; is told the shown board and what `watch` or the server answered.
import { amount, distance, points } from '../model/format.js';

const span = (name) => {
  const node = document.createElement('span');
  node.className = name;
  return node;
};

const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

export class FollowedBar {
  #node; #button; #parts;

  /** `go(user)` is called when the bar is activated. */
  constructor(node, go) {
    this.#node = node;
    this.#button = document.createElement('button');
    this.#button.type = 'button';
    const text = document.createElement('span');
    this.#parts = { rank: span('me-rank'), name: span('me-name'), far: span('me-far'), score: span('me-score') };
    this.#parts.name.append(document.createElement('bdi'));
    this.#parts.name.translate = false;
    text.append(this.#parts.name, this.#parts.far);
    this.#button.append(this.#parts.rank, text, this.#parts.score);
    this.#button.addEventListener('click', () => go());
    node.append(this.#button);
  }

  /** Shows {rank, username, score, far}; null hides the bar. */
  show(player) {
    this.#node.hidden = !player;
    if (!player) return;
    write(this.#parts.name.firstChild, player.username);
    write(this.#parts.rank, player.rank === null ? '–' : amount(player.rank));
    write(this.#parts.far, player.far);
    write(this.#parts.score, player.score === null ? '' : amount(player.score));
  }
}

/** What is known of `user`: from the board where it stands there, else from its last `rank` message. */
export function standing(user, entries, ranks, rank, name, closedWords) {
  const at = entries.findIndex((entry) => entry.user_id === user);
  if (at >= 0) {
    const { username, score } = entries[at];
    return { rank: ranks[at], username, score, far: closedWords || distance(entries, ranks, at) };
  }
  const username = name ?? `Player ${user}`;
  if (!rank || rank.rank === null || rank.rank === undefined) return { rank: null, username, score: null, far: closedWords ? 'No score in this week' : 'No score on this board yet' };
  const far = closedWords || (rank.to_next ? `${points(rank.to_next)} to the next rank` : 'Outside the top 100');
  return { rank: rank.rank, username, score: rank.score, far };
}
