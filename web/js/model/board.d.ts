/** A player's line on a board. Ids and scores stay within plus or minus 2^53. */
export interface Entry {
  user_id: number;
  username: string;
  score: number;
}

/** What a board shows: its top 100 in board order (score, then id as text, both descending). */
export interface Board {
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
  upsert: Array<{ user_id: number; username?: string; score: number }>;
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
): Board | null | typeof GAP;

/** Standard competition ranks (1, 2, 2, 4) of entries in board order. */
export declare function ranks(entries: Entry[]): number[];
