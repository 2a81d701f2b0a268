/**
 * An open file descriptor: system calls as promises, complete ones.
 *
 * Linux may read or write less than it was asked to; these go on until everything is done. Errors are those of
 * Node.js, for the caller to explain. The calls are the callback ones of `node:fs`: its promises cost twice as much.
 */
// What is called for each block by its own name: a member of `fs` has to be looked up for each call.
import fs, { constants, read, readSync, write, writeSync, writev, writevSync } from 'node:fs';
import { promisify } from 'node:util';
import type { ByteLength, ByteOffset } from '../units.js';
import { SyncBudget } from './sync-budget.js';

/** Bytes that one call may move: Linux stops just short of 2 GiB, and Node.js counts them as a signed 32-bit number. */
const CALL_LIMIT = 2 ** 30;
/** Buffers that one call may take: IOV_MAX of Linux. */
const VECTOR_LIMIT = 1024;

const open = promisify(fs.open);
const close = promisify(fs.close);
const fstat: (fd: number, options: { bigint: true }) => Promise<fs.BigIntStats> = promisify(fs.fstat);
const fdatasync = promisify(fs.fdatasync);
const fsync = promisify(fs.fsync);
const ftruncate = promisify(fs.ftruncate);
const futimes = promisify(fs.futimes);
const fchmod = promisify(fs.fchmod);
const fchown = promisify(fs.fchown);

export class Descriptor {
  /** The descriptor's number; it belongs to this object until `close`. */
  readonly number: number;
  // A cached 64 KiB read takes 8 us, a cold one 60 us or more. A write waits where the kernel makes writers wait for the disk
  // (too many dirty pages, a page being written back), and then for milliseconds.
  readonly #reads = new SyncBudget({ largest: 65_536, slow: 0.04 });
  readonly #writes = new SyncBudget({ largest: 262_144, slow: 1 });

  private constructor(number: number) {
    this.number = number;
  }

  /**
   * @param flags as for open(2); close-on-exec is always added by Node.js. What is only read keeps its time of last access
   * too, for examiners, where this user may ask for that: its owner and root.
   */
  static async open(path: string, flags: number, mode?: number): Promise<Descriptor> {
    const isReadOnly = (flags & (constants.O_WRONLY | constants.O_RDWR)) === 0;
    if (isReadOnly) {
      const quiet = await open(path, flags | constants.O_NOATIME, mode).catch(() => undefined);
      if (quiet !== undefined) return new Descriptor(quiet);
    }
    return new Descriptor(await open(path, flags, mode));
  }

  /** Reads until `target` is full or the file ends; returns how many bytes that were. */
  async read(target: Uint8Array, position: ByteOffset): Promise<ByteLength> {
    let done = 0;
    while (done < target.byteLength) {
      const wanted = Math.min(target.byteLength - done, CALL_LIMIT);
      let count: number;
      if (this.#reads.allows(wanted)) {
        while (!this.#reads.ready) await this.#reads.turn();
        count = this.#readNow(target, done, wanted, position + done);
      } else {
        count = await this.#readInPool(target, done, wanted, position + done);
      }
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  /** The same without a promise; `undefined`: a promise is the better choice, nothing was read. */
  readNow(target: Uint8Array, position: ByteOffset): ByteLength | undefined {
    if (!this.#reads.admits(target.byteLength)) return undefined;
    let done = 0;
    while (done < target.byteLength) {
      const count = this.#readNow(target, done, target.byteLength - done, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  /** Writes all of `sources`, one after the other. */
  async write(sources: readonly Uint8Array[], position: ByteOffset): Promise<void> {
    let left = sources;
    let at = position;
    while (left.length > 0) {
      const batch = left.length > VECTOR_LIMIT ? left.slice(0, VECTOR_LIMIT) : left;
      const length = byteLength(batch);
      let count: number;
      if (this.#writes.allows(length)) {
        while (!this.#writes.ready) await this.#writes.turn();
        count = this.#writeNow(batch, at);
      } else {
        count = await this.#writeInPool(batch, at);
      }
      if (count === 0 && length > 0) throw new Error(`a write of ${length} bytes at ${at} wrote nothing`);
      at += count;
      left = count === length ? left.slice(batch.length) : dropBytes(left, count);
    }
  }

  /** The same without a promise; `false`: a promise is the better choice, nothing was written. */
  writeNow(sources: readonly Uint8Array[], position: ByteOffset): boolean {
    const length = byteLength(sources);
    if (sources.length > VECTOR_LIMIT || !this.#writes.admits(length)) return false;
    let left = sources;
    for (let done = 0; done < length; ) {
      const count = this.#writeNow(left, position + done);
      if (count === 0) throw new Error(`a write of ${length} bytes at ${position} ended after ${done}`);
      done += count;
      if (done < length) left = dropBytes(left, count);
    }
    return true;
  }

  /** Sets access and modification time, in seconds since 1970. */
  setTimes(seconds: number): Promise<void> {
    return futimes(this.number, seconds, seconds);
  }

  stat(): Promise<fs.BigIntStats> {
    return fstat(this.number, { bigint: true });
  }

  /** Makes content durable, and of its metadata what is needed to read it back (the size). */
  datasync(): Promise<void> {
    return fdatasync(this.number);
  }

  sync(): Promise<void> {
    return fsync(this.number);
  }

  truncate(size: ByteLength): Promise<void> {
    return ftruncate(this.number, size);
  }

  chmod(mode: number): Promise<void> {
    return fchmod(this.number, mode);
  }

  chgrp(group: number): Promise<void> {
    return fchown(this.number, -1, group);
  }

  /** To be called once, with no call under way. */
  close(): Promise<void> {
    return close(this.number);
  }

  #readNow(target: Uint8Array, from: number, length: ByteLength, position: ByteOffset): number {
    const started = this.#reads.started();
    const count = readSync(this.number, target, from, length, position);
    this.#reads.finished(started);
    return count;
  }

  #readInPool(target: Uint8Array, from: number, length: ByteLength, position: ByteOffset): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.number, target, from, length, position, (error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  #writeNow(sources: readonly Uint8Array[], position: ByteOffset): number {
    const started = this.#writes.started();
    const [only] = sources;
    const count =
      sources.length === 1 && only !== undefined
        ? writeSync(this.number, only, 0, only.byteLength, position)
        : writevSync(this.number, sources, position);
    this.#writes.finished(started);
    return count;
  }

  #writeInPool(sources: readonly Uint8Array[], position: ByteOffset): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, count: number) => {
        if (error === null) resolve(count);
        else reject(error);
      };
      const [only] = sources;
      if (sources.length === 1 && only !== undefined) {
        write(this.number, only, 0, Math.min(only.byteLength, CALL_LIMIT), position, done);
      } else {
        writev(this.number, sources, position, done);
      }
    });
  }
}

/** How many bytes `sources` hold together. */
export function byteLength(sources: readonly Uint8Array[]): ByteLength {
  let sum = 0;
  for (const source of sources) sum += source.byteLength;
  return sum;
}

/** What is left of `sources` without their first `count` bytes. */
function dropBytes(sources: readonly Uint8Array[], count: ByteLength): readonly Uint8Array[] {
  let rest = count;
  for (const [index, source] of sources.entries()) {
    if (rest < source.byteLength) {
      return rest === 0 ? sources.slice(index) : [source.subarray(rest), ...sources.slice(index + 1)];
    }
    rest -= source.byteLength;
  }
  return [];
}
