/** What short scripted histories are made of. */
import { BLOCK_SIZE } from '../../src/units.js';
import type { Operation } from './plan.js';
import type { InsidePlan } from './plan-inside.js';

/** What is done between an opening and its end. */
export interface Stage {
  readonly operations: readonly Operation[];
  readonly clients: number;
  /** Does it last until a revert is over? */
  readonly untilReverted?: boolean;
}

export interface EndedStage extends Stage {
  readonly end: 'close' | 'kill' | 'power-cut';
  /** Steps to the crash. Default 90. */
  readonly steps?: number;
}

export interface History {
  readonly name: string;
  readonly blocks: number;
  /** Blocks of the first diff areas and of their growth. */
  readonly growth?: number;
  /** Blocks that diff areas may take in all. */
  readonly maximum?: number;
  /** In-volume: blocks of the reserve for diff areas. */
  readonly room?: number;
  /** In-volume: the store lies inside the volume, whose first block is not its own. */
  readonly inside?: InsidePlan;
  /** Openings before, each ended in its way. */
  readonly before: readonly EndedStage[];
  /** Done to its end after the last opening. */
  readonly opened: Stage;
  /** Where every crash is tried: work, the close that follows, or the next opening. */
  readonly explored: Stage | 'close' | 'opening';
  /** Is a snapshot taken after each recovery, too? Then there must be room for it. */
  readonly snapshotAfter?: boolean;
  /** Blocks that are written after each recovery. Default 8. */
  readonly probe?: number;
}

export const SECTOR = 512;
export const NOTHING: Stage = { operations: [], clients: 1 };

export const stage = (clients: number, ...operations: readonly Operation[]): Stage => ({
  operations,
  clients,
});
export const CREATE: Operation = { kind: 'create' };
/** Blocks 1 to 3 of six are unused, whatever they hold. */
export const CREATE_SKIPPING: Operation = { kind: 'create', free: 36 };
export const FLUSH: Operation = { kind: 'flush' };
export const DELETE_OLDEST: Operation = { kind: 'delete-oldest' };
export const DELETE_ALL: Operation = { kind: 'delete-all' };
/** Deletes the snapshot of that age, 0 the oldest, and waits until it is merged. */
export const remove = (age: number): Operation => ({ kind: 'delete', age, wait: true });

/** The same, of the second one, without waiting. */
export const DELETE_SECOND: Operation = { kind: 'delete', age: 1, wait: false };

export const REVERT: Operation = { kind: 'revert', age: 0, keep: true };
export const REVERT_FOR_GOOD: Operation = { kind: 'revert', age: 0, keep: false };
export const CANCEL_REVERT: Operation = { kind: 'cancel-revert' };

/** Writes one sector of a block. */
export const touch = (block: number): Operation => writeOf(block * BLOCK_SIZE + 4 * SECTOR, SECTOR);
/** Writes whole blocks. */
export const write = (block: number, count = 1): Operation => writeOf(block * BLOCK_SIZE, count * BLOCK_SIZE);
/** Writes one sector of each of `count` blocks, one after the other. */
export const touchAll = (block: number, count: number): Operation[] =>
  Array.from({ length: count }, (_, index) => touch(block + index));
export const zeroes = (block: number, count: number): Operation => ({
  kind: 'zeroes',
  offset: block * BLOCK_SIZE,
  length: count * BLOCK_SIZE,
});
/** Writes zeros, also where there are some: each block gets an entry. */
export const writeZeros = (block: number, count: number): Operation => ({
  ...writeOf(block * BLOCK_SIZE, count * BLOCK_SIZE),
  zeros: true,
});
/** Writes some sectors of a block of a snapshot. */
export const touchSnapshot = (age: number, block: number, sector = 4, sectors = 1): Operation => ({
  kind: 'write-snapshot',
  age,
  zeros: false,
  offset: block * BLOCK_SIZE + sector * SECTOR,
  length: sectors * SECTOR,
});
export const flushSnapshot = (age: number): Operation => ({ kind: 'flush-snapshot', age });
/** Copies blocks within the volume. */
export const copy = (from: number, to: number, count = 1): Operation => ({
  kind: 'copy-range',
  from: from * BLOCK_SIZE,
  offset: to * BLOCK_SIZE,
  length: count * BLOCK_SIZE,
});
export const limit = (blocks: number): Operation => ({ kind: 'limit', maximum: blocks * BLOCK_SIZE });

export function writeOf(offset: number, length: number): Operation & { readonly kind: 'write' } {
  return { kind: 'write', offset, length, zeros: false };
}
