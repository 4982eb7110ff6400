// Owns where this code was served from, and how its server is asked. Never sends a token to another server.
// Assumes that every script lies below `static/` of its server, with or without a path prefix.
import { holdSession, session } from './session.js';

/** The server's base address: everything before `static/`. */
export const base = (scriptUrl) => new URL(scriptUrl.replace(/\/static\/.*$/, '/'));

export const server = base(import.meta.url);

/** Codes that end a session. When that is only the server can tell: this device's clock may be wrong. */
export const ENDED = new Set(['unauthorized', 'expired']);

/** Asks this server for whoever is signed in here, as private boards need it; another one for nobody. */
export async function getJson(path, from = server, token = from === server ? session()?.token : undefined) {
  const headers = { accept: 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(new URL(path, from), { headers });
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const { code, message = response.statusText } = body?.error ?? {};
  if (ENDED.has(code) && token && token === session()?.token) { // whoever was signed in here is so no longer
    holdSession(null);
    return getJson(path, from, null);
  }
  throw Object.assign(new Error(message), { status: response.status, code });
}
