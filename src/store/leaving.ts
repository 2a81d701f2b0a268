/**
 * How blocks of a reserve inside the volume become the volume's own: they are made zero, and the list of the reserve becomes shorter, durably.
 *
 * If a device fails in between, nobody knows which list counts at the next opening. So such blocks are never handed out again, nor are they the volume's
 * yet; they go with the next that are left.
 *
 * Shared state: `reserve` and `free` of the store, and `#begun`; changed between awaits only. `leave` has one caller at a time.
 */
import type { BlockDevice } from '../device/block-device.js';
import { writeZeros } from '../device/zeros.js';
import { ReadOnlyError } from '../errors.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import { Extents } from './extents.js';
import { beyondList, writeReserveList } from './reserve-list.js';

export interface LeavingParts {
  readonly device: BlockDevice;
  /** Where the list of the reserve lies, and the epoch of its blocks. */
  readonly listAt: ByteOffset;
  readonly epoch: bigint;
  /** All blocks of the store, by number on the device. */
  readonly reserve: Extents;
  /** Those of them that may be handed out. */
  readonly free: Extents;
}

export class Leaving {
  readonly #parts: LeavingParts;
  /** Blocks whose leaving has begun and failed: of the reserve still, but not free. */
  #begun = new Extents();

  constructor(parts: LeavingParts) {
    this.#parts = parts;
  }

  /**
   * Leaves what the reserve has of blocks `[start, end)` to the volume.
   * @throws ReadOnlyError if a diff area lies there, having done nothing; DeviceError
   */
  async leave(start: number, end: number): Promise<void> {
    const { device, listAt, epoch, reserve, free } = this.#parts;
    const unused = new Extents([...free, ...this.#begun]);
    const fresh = new Extents();
    for (const { start: from, length: count } of reserve.partsWithin(start, end - start)) {
      if (!unused.contains(from, count))
        throw new ReadOnlyError(`a diff area still lies at ${from * BLOCK_SIZE} of ${device.name}`);
      for (const part of free.partsWithin(from, count)) fresh.add(part.start, part.length);
    }
    const rest = new Extents(reserve);
    removeAll(rest, this.#begun);
    removeAll(rest, fresh);
    for (const run of beyondList(rest, free)) {
      rest.remove(run.start, run.length);
      fresh.add(run.start, run.length);
    }
    // From now on nothing is handed out there, whatever becomes of the list.
    removeAll(free, fresh);
    for (const { start: from, length: count } of fresh) this.#begun.add(from, count);
    // What was copied there is nobody's business, and read as zeros until now.
    for (const { start: from, length: count } of this.#begun)
      await writeZeros((at, zeros) => device.write(at, zeros), from * BLOCK_SIZE, count * BLOCK_SIZE);
    await device.flush(); // before the list says that these are the volume's
    await writeReserveList(device, listAt, epoch, rest, reserve);
    removeAll(reserve, this.#begun);
    this.#begun = new Extents();
  }
}

function removeAll(set: Extents, blocks: Extents): void {
  for (const { start, length } of blocks) set.remove(start, length);
}
