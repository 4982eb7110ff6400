// Owns who is signed in here. Never sends a token anywhere.

const SESSION = 'realtime.session';

/** The signed-in player {token, user_id, username}, or null. */
export function session() {
  try {
    const held = JSON.parse(localStorage.getItem(SESSION));
    return held?.token ? held : null;
  } catch { return null; } // storage is off, or what it holds is not ours
}

export function holdSession(held) {
  try {
    if (held) localStorage.setItem(SESSION, JSON.stringify(held));
    else localStorage.removeItem(SESSION);
  } catch { /* storage is off: signed in until the page closes */ }
}
