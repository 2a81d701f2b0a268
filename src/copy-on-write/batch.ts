/** Blocks that are copied together, and those who wait for it. */
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Copies } from '../diff-area/table-writer.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength } from '../units.js';

/** Blocks of one batch: 1 MiB, enough for the cost of a request to vanish behind that of its data. */
const BLOCKS_MAX = 64;
/** As many as are copied in one request. Of a batch that somebody waits for the first ones would wait for the last. */
const ASIDE_BLOCKS_MAX = 128;

/** Blocks that are worth a flush of their own while others are being copied. */
export const GROUP_BLOCKS = 256;

export class Batch {
  readonly area: DiffArea;
  readonly blocks: BlockNumber[] = [];
  /** Settles when the copies are durable and published, or when none is needed any more. */
  readonly done: Promise<void>;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  /** @param isAside is room set aside for its copies? Then it must not share the fate of those for which none may be had */
  constructor(
    area: DiffArea,
    readonly isAside = false,
  ) {
    this.area = area;
    this.done = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Who waits hears of a failure; a batch that nobody waits for any more must not end the process.
    this.done.catch(() => undefined);
  }

  get bytes(): ByteLength {
    return this.blocks.length * BLOCK_SIZE;
  }

  get isFull(): boolean {
    return this.blocks.length >= (this.isAside ? ASIDE_BLOCKS_MAX : BLOCKS_MAX);
  }

  finish(): void {
    this.#settle?.resolve();
  }

  fail(error: unknown): void {
    this.#settle?.reject(error);
  }
}

/** Where the copies of a batch went. */
export interface CopiedBatch extends Copies {
  readonly batch: Batch;
}

/** Blocks of all of them. */
export const blocksOf = (copied: readonly CopiedBatch[]): number =>
  copied.reduce((sum, { blocks }) => sum + blocks.length, 0);
