// Owns what the address bar says a page shows, and its inverse. Pure.

const BOARD = /^[A-Za-z0-9_.:~-]{1,64}$/;

/** {board, me}: what the page shows, read from its address's query, and the user who is followed there, or null. */
export function readView(search) {
  const query = new URLSearchParams(search);
  const board = query.get('board');
  const me = query.get('me');
  return {
    board: BOARD.test(board ?? '') ? board : 'current_week',
    me: /^[1-9]\d{0,15}$/.test(me ?? '') ? Number(me) : null,
  };
}

/** The shortest query that reads back as {board, me}. */
export function viewQuery({ board, me }) {
  const query = new URLSearchParams();
  if (board !== 'current_week') query.set('board', board);
  if (me !== null) query.set('me', me);
  return query.size || [...query].length ? `?${query}` : '';
}
