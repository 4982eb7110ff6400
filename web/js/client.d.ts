import type { Board, Description, Diff, Snapshot } from './model/board.js';

export type State = 'connecting' | 'live' | 'reconnecting' | 'closed';

export interface Subscribed extends Description { type: 'subscribed'; board: string; as?: string; resumed: boolean }
/** The token ended, and the board needs one: it stands still until `auth` brings another. Or there is no such board any more. */
export interface Unsubscribed { type: 'unsubscribed'; board: string; as: string }
/** The name stands for the next window; `to` is null between seasons. */
export interface Rollover { type: 'rollover'; as: string; from: string | null; to: string | null }
export interface ServerError { type: 'error'; code: string; message: string; board?: string }
export interface Authenticated { type: 'authenticated'; user_id: number | null; expires_at: string }
export interface Rank {
  type: 'rank';
  board: string;
  user_id: number;
  /** One more than there are players with a better score; null where the user has no score on this board. */
  rank: number | null;
  score: number | null;
  players: number;
  /** How far the next better score is, a positive number; null where there is none. */
  to_next: number | null;
}
export interface Accepted {
  type: 'accepted';
  submission_id: string;
  user_id: number;
  total_score: number;
  week_score: number;
  /** By board: of the leaderboard's own windows, with `with: 'all'` also of those that rank its submissions. */
  scores?: Record<string, number>;
  /** Whether this submission is now one that counts. */
  improved?: boolean;
  duplicate: boolean;
  live?: boolean;
}
/** What other leaderboards than `default` answer. */
export type AcceptedElsewhere = Omit<Accepted, 'total_score' | 'week_score'>;
export interface Rejected {
  type: 'rejected';
  submission_id: string;
  code: string;
  message: string;
  retry_after_ms: number | null;
}
export interface Submission {
  /** The slug; left out: `default`. */
  leaderboard?: string;
  /** To be added, where scores are summed: for `default` a 32-bit integer; negative ones need the scope `submit:any` or `admin`. */
  score_added?: number;
  /** Where the best or the last submission counts. */
  score?: number;
  /** At most 256 bytes as JSON. */
  metadata?: Record<string, unknown>;
  /** Counts only if it is recorded in this board's window. */
  board?: string;
  /** Answer also with the scores of the leaderboards that rank these submissions. */
  with?: 'all';
  /** At most 255 characters. */
  reason?: string;
  /** Left out: the token's own user. */
  user_id?: number;
  /** 1 to 64 characters; made up where left out. The same id counts once, however often it is sent. */
  submission_id?: string;
}

export interface Options {
  /** Sent as `auth` message after each connect, never in the address. A function is asked at each connect, and when the last token has ended. */
  token?: string | (() => string | Promise<string>);
  /** Node before 22: the `WebSocket` of the `ws` package, for example. */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Submissions kept while they wait for an outcome (100). */
  keep?: number;
  time?: { now(): number; set(call: () => void, ms: number): unknown; clear(timer: unknown): void };
  random?: () => number;
  page?: { window?: EventTarget; document?: EventTarget & { hidden: boolean } };
}

/** The part of a WebSocket that is used: the events' `data` and `code`. The browsers', Node's and that of `ws` all fit. */
export interface WebSocketLike {
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(text: string): void;
  close(): void;
}

/** Codes of what is refused, or ended, for want of rights. */
export declare const RIGHTS: ReadonlySet<string>;

/** A connection to `/ws` of a leaderboard server. It reconnects for ever; `close` ends it. */
export declare class Client {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly stale: boolean;
  /** When the next attempt starts and when the server was last heard: milliseconds since 1970, by a clock that nobody can set. */
  readonly retryAt: number | null;
  readonly heardAt: number | null;
  readonly waiting: Array<Submission & { type: 'submit'; submission_id: string }>;
  /** The server's time, in milliseconds since 1970. */
  now(): number;
  on(type: 'state', listener: (client: Client) => void): () => void;
  on(type: string, listener: (message: any) => void): () => void;
  /** A board's id, or an alias: `current_week`, `sprint:current_day`, `sprint:previous_month`. `describe`: of `default` too. */
  subscribe(
    board: string,
    listener: (board: Board | null, message: Snapshot | Diff | Subscribed | Unsubscribed | Rollover | ServerError) => void,
    options?: { describe?: boolean },
  ): () => void;
  watch(board: string, userId: number, listener: (rank: Rank) => void): () => void;
  submit(submission: Submission & { leaderboard?: undefined }): Promise<Accepted | Rejected>;
  submit(submission: Submission): Promise<AcceptedElsewhere | Rejected>;
  auth(token: string): Promise<Authenticated | ServerError>;
  /** The token in use, to ask the server over HTTP as well. */
  token(): Promise<string | undefined>;
  close(): void;
}
