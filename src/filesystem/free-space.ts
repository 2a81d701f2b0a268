/**
 * What a file system does not use, as blocks of the volume that need no copy.
 *
 * Whoever answers must be right for certain: a block that is called unused reads as zeros in the snapshot for ever. So every doubt
 * is an answer of its own, and means that all is in use.
 */
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';

/** What a file system is read from: bytes that stay as they are meanwhile. */
export interface FileSystemSource {
  /** Fills `target` with the bytes from `offset`, which lie within the size that was given. */
  read(offset: ByteOffset, target: Uint8Array): Promise<unknown>;
}

export type FreeSpace =
  /** One bit for each 16 KiB of the volume, least significant first; set: all of it is unused. What is missing at the end is in use. */
  | { readonly unused: Uint8Array }
  /** Nothing is known for certain, for this reason: all is in use. */
  | { readonly unsure: string };

/** Tells what of a volume nothing uses. */
export interface FreeSpaceProvider {
  /** What messages call it. */
  readonly name: string;
  /**
   * @param source the volume as it was at the moment of the snapshot
   * @param size bytes of the volume
   * @param signal aborted when it takes too long
   * @throws what `source` throws, and the signal's reason
   */
  unusedBlocks(source: FileSystemSource, size: ByteLength, signal: AbortSignal): Promise<FreeSpace>;
}

/** The bytes do not say for certain what is unused. Never leaves this folder. */
export class Unsure extends Error {
  override readonly name = 'Unsure';
}

/** Throws `Unsure` unless something holds that the answer depends on. */
export function sure(condition: boolean, describe: () => string): asserts condition {
  if (!condition) throw new Unsure(describe());
}

/** Turns doubt into an answer. */
export async function unlessUnsure(find: () => Promise<Uint8Array>): Promise<FreeSpace> {
  try {
    return { unused: await find() };
  } catch (error) {
    if (error instanceof Unsure) return { unsure: error.message };
    throw error;
  }
}

/** Collects unused ranges of bytes, in ascending order, and makes blocks of them. */
export class UnusedRanges {
  readonly #bits: Uint8Array;
  readonly #size: ByteLength;
  #start: ByteOffset = 0;
  #end: ByteOffset = 0;

  /** @param size bytes of the volume */
  constructor(size: ByteLength) {
    this.#size = size;
    this.#bits = new Uint8Array(Math.ceil(size / BLOCK_SIZE / 8));
  }

  /** Bytes `start` up to `end` are unused; none before `start` is added afterwards. */
  add(start: ByteOffset, end: ByteOffset): void {
    sure(start >= this.#end && end <= this.#size, () => `unused bytes ${start} to ${end} overlap others`);
    if (start !== this.#end) this.#write(true);
    if (start !== this.#end) this.#start = start;
    this.#end = end;
  }

  /** Bytes `start` up to `end` are in use, whatever was said before. Nothing is added after this. */
  remove(start: ByteOffset, end: ByteOffset): void {
    this.#write(true);
    this.#start = this.#end = this.#size;
    if (end <= start) return;
    this.#fill(Math.floor(start / BLOCK_SIZE), Math.ceil(Math.min(end, this.#size) / BLOCK_SIZE), false);
  }

  /** The blocks that are unused as a whole. */
  finish(): Uint8Array {
    this.#write(true);
    return this.#bits;
  }

  #write(value: boolean): void {
    this.#fill(Math.ceil(this.#start / BLOCK_SIZE), Math.floor(this.#end / BLOCK_SIZE), value);
  }

  #fill(first: number, end: number, value: boolean): void {
    const bits = this.#bits;
    for (let block = first; block < end; ) {
      if (block % 8 === 0 && block + 8 <= end) {
        const bytes = Math.floor((end - block) / 8);
        bits.fill(value ? 0xff : 0, block / 8, block / 8 + bytes);
        block += bytes * 8;
        continue;
      }
      const at = Math.floor(block / 8);
      const mask = 1 << (block % 8);
      bits[at] = value ? (bits[at] ?? 0) | mask : (bits[at] ?? 0) & ~mask;
      block++;
    }
  }
}

/**
 * Clear bits of a bitmap of a file system, least significant first, as runs `[start, end)` below `count`.
 * @param bits at least `count` bits
 */
export function* clearRuns(
  bits: Uint8Array,
  count: number,
): Generator<readonly [start: number, end: number]> {
  let start = -1;
  for (let bit = 0; bit < count; ) {
    const byte = bits[Math.floor(bit / 8)] ?? 0xff;
    if (bit % 8 === 0 && bit + 8 <= count && (byte === 0 || byte === 0xff)) {
      if (byte === 0 && start < 0) start = bit;
      if (byte === 0xff && start >= 0) {
        yield [start, bit];
        start = -1;
      }
      bit += 8;
      continue;
    }
    const isClear = ((byte >>> (bit % 8)) & 1) === 0;
    if (isClear && start < 0) start = bit;
    if (!isClear && start >= 0) {
      yield [start, bit];
      start = -1;
    }
    bit++;
  }
  if (start >= 0) yield [start, count];
}
