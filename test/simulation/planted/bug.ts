import type { Topic } from '../plan.js';

/** A sabotage of the engine: a mistake that somebody could make, and the promise that it breaks. */
export interface PlantedBug {
  readonly name: string;
  /** What goes wrong by it. */
  readonly breaks: string;
  readonly edits: readonly Edit[];
  /** Shows only where table blocks and location blocks hold a few entries instead of hundreds: see `SMALL_BLOCKS`. */
  readonly smallBlocks?: boolean;
  /** Shows only when bits rot. */
  readonly rot?: boolean;
  /** Shows only where snapshot sets are taken over several volumes: see `sets.ts`; or, of them, where most crashes cut one off. */
  readonly sets?: boolean | 'commits';
  /** Looked for in plans that are about this, because few of the others are. */
  readonly about?: Topic;
  /** Further outcomes of each crash that are tried: where few of them show it. */
  readonly outcomes?: number;
  /** Looked for by a unit test, because only a situation that is made by hand shows it. */
  readonly unitTest?: UnitTest;
  /** Looked for in every crash of a history, because random runs meet it too seldom. */
  readonly history?: BugHistory;
}

/** Which crashes show a bug: see `exhaustive.ts --chains`. */
export interface BugHistory {
  readonly name: string;
  readonly layout: 'directory' | 'in-volume';
  /** Orders of events to try. Default 1. */
  readonly orders?: number;
  /** So many states of each moment at most. Default: all. */
  readonly statesMax?: number;
}

/** A test that fails with the bug. */
export interface UnitTest {
  /** Below `test/unit/`. */
  readonly file: string;
  /** How its name begins. */
  readonly name: string;
}

/** A change of one source file. */
export interface Edit {
  /** Below `src/`. */
  readonly file: string;
  /** Occurs exactly once. */
  readonly find: string;
  readonly replace: string;
}

export const SMALL_TABLE_ENTRIES = 20;

/**
 * Not a bug: a format of the same kind with blocks that are soon full, so that chains of them come up all the time. Table
 * blocks hold 20 entries (two sectors), location blocks 2 runs, batches 3 copies, parts of a copy within the volume and of a revert
 * 2 blocks; merges go in groups of 3 copies and give space back after each.
 */
export const SMALL_BLOCKS: readonly Edit[] = [
  {
    file: 'format/constants.ts',
    find: 'PAYLOAD_SIZE / ENTRY_SIZE;',
    replace: `${SMALL_TABLE_ENTRIES};`,
  },
  {
    file: 'format/constants.ts',
    find: 'Math.floor(PAYLOAD_SIZE / LOCATION_SIZE);',
    replace: '2;',
  },
  {
    file: 'copy-on-write/batch.ts',
    find: 'const BLOCKS_MAX = 64;',
    replace: 'const BLOCKS_MAX = 3;',
  },
  {
    file: 'volume/copy-range.ts',
    find: 'const PART_BYTES = 256 * BLOCK_SIZE;',
    replace: 'const PART_BYTES = 2 * BLOCK_SIZE;',
  },
  {
    file: 'snapshot/revert.ts',
    find: 'const RUN_BLOCKS = 256;',
    replace: 'const RUN_BLOCKS = 2;',
  },
  {
    file: 'snapshot/merge.ts',
    find: 'const GROUP_MAX = 256;',
    replace: 'const GROUP_MAX = 3;',
  },
  {
    file: 'snapshot/merge.ts',
    find: 'const isAmple = this.#context.space.available >= AMPLE * this.#end * BLOCK_SIZE;',
    replace: 'const isAmple = AMPLE < 0;',
  },
];
