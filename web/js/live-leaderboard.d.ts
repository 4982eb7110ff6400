/** `<live-leaderboard board top user theme heading server>`: importing this module defines it. */
export declare class LiveLeaderboard extends HTMLElement {
  /** Id or alias of the board shown: `current_week` where nothing is said, `sprint:current_day`. */
  readonly board: string;
  /** Rows shown, 1 to 100 (10). */
  readonly top: number;
  /** The player who is followed, or null. */
  readonly user: number | null;
  /** Base address of the server (the one that this module is from). */
  readonly server: string;
}

declare global {
  interface HTMLElementTagNameMap {
    'live-leaderboard': LiveLeaderboard;
  }
}
