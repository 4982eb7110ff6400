// Owns what the address bar says a page shows, and its inverse. Pure.

const BOARD = /^[A-Za-z0-9_.:~-]{1,64}$/;

/** What the page shows, read from its address: the board, and the user who is followed. */
export function readView(search = location.search) {
  const query = new URLSearchParams(search);
  const board = query.get('board');
  const me = query.get('me');
  return {
    board: BOARD.test(board ?? '') ? board : 'current_week',
    me: /^[1-9]\d{0,15}$/.test(me ?? '') ? Number(me) : null,
  };
}

export function viewQuery({ board, me }) {
  const query = new URLSearchParams();
  if (board !== 'current_week') query.set('board', board);
  if (me !== null) query.set('me', me);
  return query.size || [...query].length ? `?${query}` : '';
}
