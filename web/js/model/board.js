// Owns what a board looks like after a message, and which refusals bar it. Never touches the DOM, a clock or a socket.
// Assumes messages of wire protocol v1; fields it does not know are ignored.

/** `apply` answers this where only a fresh snapshot can help. */
export const GAP = 'gap';

/** Codes of refusals for want of rights. */
export const RIGHTS = new Set(['unauthorized', 'forbidden', 'expired']);

const byOrder = (a, b) => b.score - a.score || (String(a.user_id) < String(b.user_id) ? 1 : -1);

/** The board after `message`: the same object where nothing changed, GAP where a version is missing. */
export function apply(board, message) {
  if (board && message.board !== board.board) return board;
  if (message.type === 'snapshot') {
    const { board: id, epoch, version, entries } = message;
    return { board: id, epoch, version, entries };
  }
  if (message.type !== 'diff') return board;
  if (!board || message.epoch !== board.epoch) return GAP;
  if (message.version <= board.version) return board; // heard before
  if (message.from !== board.version) return GAP;
  const rows = new Map(board.entries.map((entry) => [entry.user_id, entry]));
  for (const id of message.remove ?? []) rows.delete(id);
  for (const { user_id, username, score } of message.upsert ?? []) {
    const name = username ?? rows.get(user_id)?.username;
    if (name === undefined) return GAP; // a newcomer nobody named
    rows.set(user_id, { user_id, username: name, score });
  }
  return { ...board, version: message.version, entries: [...rows.values()].sort(byOrder) };
}

/** Standard competition ranks (1, 2, 2, 4) of entries in board order. */
export function ranks(entries) {
  const found = [];
  entries.forEach(({ score }, i) => found.push(i && score === entries[i - 1].score ? found[i - 1] : i + 1));
  return found;
}
