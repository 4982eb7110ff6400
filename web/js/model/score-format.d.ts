import type { Format } from './board.js';

/**
 * A score for people, the same in every language: `1:02.345`, `12.50`, `1234`. Without a format, and for a kind that is
 * not known: a whole number.
 */
export declare function formatScore(format: Format | undefined, score: number): string;

/** The score that somebody typed, in the smallest unit; null where it is none, or beyond plus or minus 2^53 - 1. */
export declare function parseScore(format: Format | undefined, typed: string): number | null;
