/**
 * Blocks that nothing in memory needs any more, but that the last commit still names: free once the next one is durable.
 * Shared state: changed between awaits only.
 */
import type { BlockKind, BlockMap } from './block-map.js';

interface Freed {
  readonly address: number;
  readonly count: number;
  readonly kind: BlockKind;
}

export class Deferred {
  #freed: Freed[] = [];
  #blocks = { metadata: 0, data: 0 };

  /** How many ranges wait. */
  get size(): number {
    return this.#freed.length;
  }

  /** How many blocks those are together. */
  get blocks(): number {
    return this.#blocks.metadata + this.#blocks.data;
  }

  get blocksOf(): Readonly<Record<BlockKind, number>> {
    return this.#blocks;
  }

  add(address: number, count: number, kind: BlockKind): void {
    this.#freed.push({ address, count, kind });
    this.#blocks[kind] += count;
  }

  /** What a commit that begins now will free. @returns frees it */
  take(): (map: BlockMap) => void {
    const taken = this.#freed;
    this.#freed = [];
    this.#blocks = { metadata: 0, data: 0 };
    return (map) => {
      for (const { address, count, kind } of taken) map.release(address, count, kind);
    };
  }
}
