// Owns what a board looks like after a message, and which refusals bar it. Never touches the DOM, a clock or a socket.
// Assumes messages of wire protocol v1; fields it does not know are ignored.

/** `apply` answers this where only a fresh snapshot can help. */
export const GAP = 'gap';

/** Codes of refusals for want of rights. */
export const RIGHTS = new Set(['unauthorized', 'forbidden', 'expired']);

/** What sorts entries as `leaderboard` says: by score, then by who was there first or last, or by id as text. */
function inOrder({ order, ties = 'user_id' } = {}) {
  const turn = order === 'ascending' ? 1 : -1;
  const byMoment = (a, b) => (ties === 'user_id' ? 0 : a.at[0] - b.at[0] || a.at[1] - b.at[1]); // of `last` both are negated
  return (a, b) => turn * (a.score - b.score) || byMoment(a, b) || (String(a.user_id) < String(b.user_id) ? -turn : turn);
}

/** The board after `message`: the same object where nothing changed, GAP where a version is missing. */
export function apply(board, message, description) {
  if (board && message.board !== board.board) return board;
  if (message.type === 'snapshot') {
    const { board: id, epoch, version, entries } = message;
    return { board: id, epoch, version, entries, ...description };
  }
  if (message.type !== 'diff') return board;
  if (!board || message.epoch !== board.epoch) return GAP;
  if (message.version <= board.version) return board; // heard before
  if (message.from !== board.version) return GAP;
  const rows = new Map(board.entries.map((entry) => [entry.user_id, entry]));
  for (const id of message.remove ?? []) rows.delete(id);
  for (const line of message.upsert ?? []) { // whole lines, but for names that are known
    const username = line.username ?? rows.get(line.user_id)?.username;
    if (username === undefined) return GAP; // a newcomer nobody named
    rows.set(line.user_id, { ...line, username });
  }
  return { ...board, version: message.version, entries: [...rows.values()].sort(inOrder(board.leaderboard)) };
}

/** The board as `description` ({leaderboard, window}) has it: what it holds, in that order. */
export const described = (board, description) =>
  ({ ...board, ...description, entries: [...board.entries].sort(inOrder(description.leaderboard)) });

/** Ranks of entries in board order: competition (1 2 2 4), dense (1 2 2 3) or ordinal (1 2 3 4). */
export function ranks(entries, style = 'competition') {
  const found = [];
  entries.forEach(({ score }, i) => {
    const before = found[i - 1] ?? 0;
    const isShared = i && score === entries[i - 1].score && style !== 'ordinal';
    found.push(isShared ? before : style === 'dense' ? before + 1 : i + 1);
  });
  return found;
}
