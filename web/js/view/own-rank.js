// Owns the bar of the player who is followed: rank, name, distance to the next rank, score.
// Never asks for a rank, and never words one; is told both.
import { amount, scoreText } from '../model/format.js';
import { write } from './text.js';

const span = (name) => {
  const node = document.createElement('span');
  node.className = name;
  return node;
};

export class OwnRank {
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

  /** Shows {rank, username, score, far}, the score as `leaderboard` has it; null hides the bar. */
  show(player, leaderboard) {
    this.#node.hidden = !player;
    if (!player) return;
    write(this.#parts.name.firstChild, player.username);
    write(this.#parts.rank, player.rank === null ? '–' : amount(player.rank));
    write(this.#parts.far, player.far);
    write(this.#parts.score, player.score === null ? '' : scoreText(leaderboard, player.score));
  }
}
