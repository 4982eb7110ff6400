// Owns the page's one clock: milliseconds since 1970, as this device had them when the page began, counted on since.
// Nobody can set it while the page is open. It may stand still while the device sleeps: what time it is for a board,
// the server says (`Client.now`). Assumes nothing of its host: where there is no clock for that, the device's own serves.

const ticks = globalThis.performance?.now ? () => performance.now() : () => Date.now();
const began = Date.now() - ticks();

/** Now, for whatever takes time: waits, marks, silences. */
export const now = () => began + ticks();
