// Owns what the pages say about the connection. Pure: the client and the time in, words out.
import { clockTime, shortTime } from './format.js';

const GIVEN_UP_MS = 30_000; // from then on the scores count as old
const BLINK_MS = 1_000; // a shorter loss is not worth a sentence
const QUIET_MS = 400;

/**
 * {lamp, on, note, old} for a client on a page opened at `openedAt`; all times by the page's clock, but what is shown by the server's.
 * `isFinal`: the board has ended; `refused`: why it is not shown, in a word. Neither is live.
 */
export function describe(client, { openedAt, hasBoard, isFinal = false, refused = '' }, now) {
  const { state, stale, retryAt, heardAt } = client;
  const heard = heardAt + client.now() - now;
  if (state === 'live' && stale) return { lamp: 'Paused', on: false, note: 'The server is catching up. These are its last scores.', old: false };
  if (state === 'live' && (refused || isFinal)) return { lamp: refused || 'Final', on: false, note: '', old: false };
  if (state === 'live') return { lamp: 'Live', on: true, note: hasBoard || now - openedAt < QUIET_MS ? '' : 'Getting the scores', old: false };
  const inSeconds = retryAt === null || retryAt <= now ? 'Trying again now.' : `Trying again in ${Math.ceil((retryAt - now) / 1000)} s.`;
  if (!hasBoard) {
    const waited = now - openedAt;
    const note = waited < QUIET_MS ? '' : waited < GIVEN_UP_MS ? 'Getting the scores' : `The server does not answer. ${inSeconds}`;
    return { lamp: waited < GIVEN_UP_MS ? 'Connecting' : 'Offline', on: false, note, old: false };
  }
  if (now - heardAt >= GIVEN_UP_MS) {
    return { lamp: 'Offline', on: false, note: `No connection since ${shortTime(heard)}. The scores below are from then.`, old: true };
  }
  const note = now - heardAt < BLINK_MS ? '' : `Connection lost. These are the scores from ${clockTime(heard)}. ${inSeconds}`;
  return { lamp: 'Reconnecting', on: false, note, old: false };
}
