/**
 * Blocks that nothing in memory needs any more, but that the last commit still names: free once the next one is durable.
 * Shared state: changed between awaits only.
 */
import type { BlockKind, BlockMap } from './block-map.js';
import { grown } from './treap.js';

/** Numbers that one range takes: address, length, and 1 if it held data. */
const WORDS = 3;
const FIRST_CAPACITY = 64 * WORDS;

export class Deferred {
  #words: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  #size = 0;
  #blocks = { metadata: 0, data: 0 };

  /** How many ranges wait. */
  get size(): number {
    return this.#size;
  }

  /** How many blocks those are together. */
  get blocks(): number {
    return this.#blocks.metadata + this.#blocks.data;
  }

  get blocksOf(): Readonly<Record<BlockKind, number>> {
    return this.#blocks;
  }

  add(address: number, count: number, kind: BlockKind): void {
    const at = this.#size++ * WORDS;
    if (at === this.#words.length) this.#words = grown(this.#words, 2 * at);
    this.#words[at] = address;
    this.#words[at + 1] = count;
    this.#words[at + 2] = kind === 'data' ? 1 : 0;
    this.#blocks[kind] += count;
  }

  /** What a commit that begins now will free. @returns frees it */
  take(): (map: BlockMap) => void {
    const [words, size] = [this.#words, this.#size];
    this.#words = new Uint32Array(FIRST_CAPACITY);
    this.#size = 0;
    this.#blocks = { metadata: 0, data: 0 };
    return (map) => {
      for (let at = 0; at < size * WORDS; at += WORDS)
        map.release(words[at] ?? 0, words[at + 1] ?? 0, words[at + 2] === 1 ? 'data' : 'metadata');
    };
  }
}
