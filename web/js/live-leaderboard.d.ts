import type { Board } from './model/board.js';
import type { Rank } from './client.js';

/**
 * `<live-leaderboard board top user theme heading server token>`: importing this module defines it, where there is a page.
 * Every attribute is a property that reflects to it; null takes it away.
 */
export declare class LiveLeaderboard extends HTMLElement {
  /** Id or alias of the board shown: `current_week` where nothing is said, `sprint:current_day`. */
  get board(): string;
  set board(value: string | null | undefined);
  /** Rows shown, 1 to 100 (10). */
  get top(): number;
  set top(value: number | string | null | undefined);
  /** The player who is followed: a number, or a name as it stands on the board; null for nobody. */
  get user(): number | string | null;
  set user(value: number | string | null | undefined);
  get theme(): 'light' | 'dark' | 'auto';
  set theme(value: 'light' | 'dark' | 'auto' | null | undefined);
  /** Words above the board: its own name where nothing is said, none where that is empty. */
  get heading(): string | null;
  set heading(value: string | null | undefined);
  /** Base address of the server (the one that this module is from). */
  get server(): string;
  set server(value: string | null | undefined);
  /** For private boards. */
  get token(): string | null;
  set token(value: string | null | undefined);
  /** Brings a token: asked at each connect, and when the last one has ended. It goes before `token`. */
  getToken: (() => string | Promise<string>) | null;

  addEventListener<K extends keyof LiveLeaderboardEvents>(
    type: K, listener: (this: LiveLeaderboard, event: LiveLeaderboardEvents[K]) => void, options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

/** None of them bubbles. */
export interface LiveLeaderboardEvents extends HTMLElementEventMap {
  /** The board changed, or another one is shown. */
  change: CustomEvent<{ board: Board }> & Event;
  /** The followed player stands elsewhere. */
  rank: CustomEvent<Rank>;
  /** What the element says beside its heading changed: "Live", "Final", "Reconnecting", "Private". */
  state: CustomEvent<{ state: string; live: boolean }>;
}

declare global {
  interface HTMLElementTagNameMap {
    'live-leaderboard': LiveLeaderboard;
  }
}
