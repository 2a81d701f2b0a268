/**
 * Memory that the main thread and those that work on files see. WebAssembly can compute in it, so the checksum of what was
 * read there needs no copy of it.
 *
 *     checksums │ a buffer for each thread │ parts, in units of 256 KiB
 *
 * There is one for the process, made when it is first wanted. It takes addresses; real memory only as far as it has been used. A part
 * that is not given back is lost, so who takes one must know when nobody uses it any more.
 *
 * Shared state: which units are taken; the main thread changes it, between awaits only.
 */
import * as zlib from 'node:zlib';
import {
  CRC32_RESERVED,
  CRC32_THREADS,
  type Crc32InPlace,
  type Crc32Place,
  crc32,
  crc32Place,
  makeCrc32InPlace,
  type SharedCrc32Memory,
  sharedCrc32Memory,
  WASM_PAGE,
} from '../crc32.js';
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';

const UNIT: ByteLength = 262_144;
/** From this many bytes on a read is worth the way to the thread and back. */
export const SHARED_READ_MIN = UNIT;
const UNITS = 256;

/** Bytes of the buffer that each thread has. */
export const THREAD_BUFFER: ByteLength = UNIT;
const FIRST_UNIT = CRC32_RESERVED + CRC32_THREADS * THREAD_BUFFER;
const SIZE = FIRST_UNIT + UNITS * UNIT;

let current: SharedMemory | undefined;
/** It is not tried again with each read. */
let isMissing = false;

export class SharedMemory {
  readonly #memory: SharedCrc32Memory;
  readonly #crc32: Crc32InPlace;
  /** 1: taken. */
  readonly #taken = new Uint8Array(UNITS);

  private constructor() {
    this.#memory = sharedCrc32Memory(SIZE / WASM_PAGE);
    this.#crc32 = makeCrc32InPlace(crc32Place(this.#memory, 0), zlib.crc32);
  }

  /** That of the process. `undefined`: it cannot be had, which `ulimit -v` may be the reason of. */
  static get(): SharedMemory | undefined {
    if (current !== undefined || isMissing) return current;
    try {
      current = new SharedMemory();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      isMissing = true;
    }
    return current;
  }

  /** Do they lie in that memory? */
  static holds(bytes: Uint8Array): boolean {
    return current?.positionOf(bytes) !== undefined;
  }

  /** For a thread beside the main one, from 1 on: what it computes with, and the position of its buffer. */
  placeOf(thread: number): { readonly crc32: Crc32Place; readonly buffer: number } {
    return { crc32: crc32Place(this.#memory, thread), buffer: CRC32_RESERVED + thread * THREAD_BUFFER };
  }

  /** The CRC-32 of a block, computed where it is if it lies in that memory. Then its first bytes are others meanwhile. */
  static crc32(block: Uint8Array): number {
    const position = block.byteLength === BLOCK_SIZE ? current?.positionOf(block) : undefined;
    return current === undefined || position === undefined ? crc32(block) : current.#crc32(position);
  }

  /** @returns a part of at least `length` bytes that begins with a page; `undefined`: there is none left of that length */
  take(length: ByteLength): Uint8Array | undefined {
    const units = Math.ceil(length / UNIT);
    for (let first = 0, count = 0; first + count < UNITS; ) {
      if (this.#taken[first + count] === 1) {
        first += count + 1;
        count = 0;
      } else if (++count === units) {
        this.#taken.fill(1, first, first + units);
        return new Uint8Array(this.#memory.buffer, FIRST_UNIT + first * UNIT, units * UNIT);
      }
    }
    return undefined;
  }

  /** Where bytes lie in the memory; `undefined`: elsewhere. */
  positionOf(bytes: Uint8Array): number | undefined {
    return bytes.buffer === this.#memory.buffer ? bytes.byteOffset : undefined;
  }

  /** @param part whole, as it came from `take` */
  give(part: Uint8Array): void {
    const first = (part.byteOffset - FIRST_UNIT) / UNIT;
    const units = part.byteLength / UNIT;
    assert(
      this.positionOf(part) !== undefined && Number.isInteger(first) && this.#taken[first] === 1,
      () =>
        `${part.byteLength} bytes at ${part.byteOffset} of the shared memory are given back, but not taken`,
    );
    this.#taken.fill(0, first, first + units);
  }
}
