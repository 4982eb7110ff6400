/** A player's line on a board. Ids and scores stay within plus or minus 2^53. */
export interface Entry {
  user_id: number;
  username: string;
  /** A whole number in the smallest unit of the leaderboard's format. */
  score: number;
  /** [microseconds, id] where ties are decided by who was there first or last; of equal scores the smaller stands higher. */
  at?: [number, number];
  /** Of the counting submission, where the leaderboard shows it. */
  metadata?: Record<string, unknown> | null;
}

/** How scores are written for people. */
export type Format =
  | { kind: 'integer' }
  | { kind: 'decimal'; places: number }
  | { kind: 'duration'; unit: 's' | 'ms' };

export type RankStyle = 'competition' | 'dense' | 'ordinal';

/** The rule of a board. */
export interface Leaderboard {
  slug: string;
  title: string;
  /** Which score is better: the smaller one of `ascending`. */
  order: 'descending' | 'ascending';
  /** Who stands higher with the same score. */
  ties: 'first' | 'last' | 'user_id';
  ranks: RankStyle;
  format: Format;
}

/** The stretch of time that a board counts, half-open; moments as in RFC 3339, null where there is none. */
export interface Window {
  kind: 'all_time' | 'day' | 'week' | 'month' | 'year' | 'season';
  starts: string | null;
  ends: string | null;
}

/** What `subscribed` says of a board: always of other leaderboards, of `default` where it was asked for. */
export interface Description {
  leaderboard?: Leaderboard;
  window?: Window;
}

/** What a board shows: its top 100, in the order of its leaderboard; without one: score, then id as text, both descending. */
export interface Board extends Description {
  board: string;
  epoch: string;
  version: number;
  entries: Entry[];
}

export interface Snapshot extends Board {
  type: 'snapshot';
}

export interface Diff {
  type: 'diff';
  board: string;
  epoch: string;
  from: number;
  version: number;
  /** Whole lines, but for names that are known. */
  upsert: Array<Omit<Entry, 'username'> & { username?: string }>;
  remove: number[];
}

/** `apply` answers this where only a fresh snapshot can help. */
export declare const GAP: 'gap';

/** Codes of refusals for want of rights. */
export declare const RIGHTS: ReadonlySet<string>;

/**
 * The board after `message`. The same object where the message changes nothing (another board, an unknown type, a
 * version already applied); GAP where a version between is missing, the epoch is another, or a newcomer has no name.
 */
export declare function apply(
  board: Board | null,
  message: Snapshot | Diff | { type: string; board?: string },
  /** Of the board that a snapshot begins. */
  description?: Description,
): Board | null | typeof GAP;

/** What `board` holds, in the order that `description` says. */
export declare function described(board: Board, description: Description & { leaderboard: Leaderboard }): Board;

/** Ranks of entries in board order: competition (1, 2, 2, 4; the default), dense (1, 2, 2, 3) or ordinal (1, 2, 3, 4). */
export declare function ranks(entries: Entry[], style?: RankStyle): number[];
