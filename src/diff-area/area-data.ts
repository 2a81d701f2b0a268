/** The data of the copies in a diff area: where it lies, and how it is written, read and verified. */
import { writeAll } from '../device/block-device.js';
import { assert, IntegrityError } from '../errors.js';
import { isZero } from '../format/binary.js';
import type { Guid } from '../format/guid.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteOffset,
  offsetOfBlock,
  offsetOfSlot,
  type Slot,
} from '../units.js';
import { FixedSlot } from './area-slots.js';
import type { BlockTable } from './block-table.js';
import { CopyChecksum } from './copy-checksum.js';

export interface AreaDataState {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly file: AreaFile;
  readonly table: BlockTable;
}

export class AreaData {
  readonly storeId: Guid;
  readonly epoch: bigint;
  /** The file, for those who look at what it holds on its device. */
  readonly file: AreaFile;
  /** What has a copy here. Changed only by `DiffArea.publish`. */
  readonly table: BlockTable;
  readonly #checksum: CopyChecksum;

  constructor({ storeId, epoch, file, table }: AreaDataState) {
    this.storeId = storeId;
    this.epoch = epoch;
    this.file = file;
    this.table = table;
    this.#checksum = new CopyChecksum(file.runs, epoch);
  }

  /** Checksum for the entry of a copy. */
  checksum(block: BlockNumber, slot: Slot, data: Uint8Array): number {
    return this.#checksum.of(block, slot, data);
  }

  /** What the checksum of a copy continues: all of it that does not depend on the data. */
  checksumSeed(block: BlockNumber, slot: Slot): number {
    return this.#checksum.seed(block, slot);
  }

  /** Where a slot lies on the device of the file. */
  positionOf(slot: Slot): ByteOffset {
    return this.file.runs.locate(offsetOfSlot(slot));
  }

  /** Writes copies: `data[i]` is 16 KiB for `slots[i]`. Contiguous slots go in one vectored write. */
  async writeData(slots: readonly Slot[], data: readonly Uint8Array[]): Promise<void> {
    assert(slots.length === data.length, () => `${data.length} blocks for ${slots.length} slots`);
    const writes: Promise<void>[] = [];
    for (let start = 0; start < slots.length; ) {
      const first = slots[start] ?? 0;
      let end = start + 1;
      while (end < slots.length && slots[end] === first + (end - start)) end++;
      for (const piece of this.file.runs.pieces(offsetOfSlot(first), (end - start) * BLOCK_SIZE)) {
        const count = piece.length / BLOCK_SIZE;
        writes.push(writeAll(this.file.device, piece.volumeOffset, joined(data.slice(start, start + count))));
        start += count;
      }
    }
    await allSettled(writes);
  }

  /** Can the copy in `slot` and the one in `next`, of a block `distance` further on, be read together? */
  canReadTogether(slot: Slot, next: Slot, distance: number): boolean {
    return slot === FixedSlot.zeros ? next === slot : next === slot + distance;
  }

  /**
   * Reads and verifies the copies of consecutive blocks, the first of which is in `slot`; all `canReadTogether`.
   * @throws IntegrityError, DeviceError
   */
  async readCopies(block: BlockNumber, slot: Slot, target: Uint8Array): Promise<void> {
    // What a block of zeros holds is known; the one on the device is there for other readers.
    if (slot === FixedSlot.zeros) {
      target.fill(0);
      return;
    }
    const sums = await this.#readSummed(block, slot, target);
    if (sums === undefined) await this.#readSlots(slot, target);
    this.#verify(block, slot, target, sums);
  }

  /**
   * Reads and verifies copies that lie in ascending slots, none of zeros; what lies together is read together.
   * @throws IntegrityError, DeviceError
   */
  async readEach(blocks: readonly BlockNumber[], slots: readonly Slot[], target: Uint8Array): Promise<void> {
    for (let from = 0, to: number; from < slots.length; from = to) {
      to = from + 1;
      const slot = slots[from] ?? 0;
      while (to < slots.length && slots[to] === slot + (to - from)) to++;
      await this.#readSlots(slot, target.subarray(from * BLOCK_SIZE, to * BLOCK_SIZE));
    }
    for (const [i, block] of blocks.entries())
      this.#verify(block, slots[i] ?? 0, target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
  }

  /** As `readCopies`, at once, if the device does that; `false`: nothing was read. */
  readCopiesNow(block: BlockNumber, slot: Slot, target: Uint8Array): boolean {
    if (slot === FixedSlot.zeros) {
      target.fill(0);
      return true;
    }
    const { device, runs } = this.file;
    if (device.readNow === undefined) return false;
    const offset = runs.locateWhole(offsetOfSlot(slot), target.byteLength);
    if (offset === undefined || !device.readNow(offset, target)) return false;
    this.#verify(block, slot, target);
    return true;
  }

  /**
   * @param sums checksums of the copies, if they have been computed already
   * @throws IntegrityError unless `data` is what was copied of the blocks from `block` on to the slots from `slot` on
   */
  #verify(block: BlockNumber, slot: Slot, data: Uint8Array, sums?: Uint32Array): void {
    for (let i = 0; i * BLOCK_SIZE < data.byteLength; i++) {
      const sum =
        sums?.[i] ?? this.checksum(block + i, slot + i, data.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
      if (sum !== this.table.checksumAt(slot + i)) {
        throw new IntegrityError(
          `snapshot ${this.storeId}: the copy of block ${block + i} (offset ${offsetOfBlock(block + i)}) in slot ${slot + i} fails its checksum`,
        );
      }
    }
  }

  /** Is the block of zeros, which other readers of the format rely on, what it should be? @throws DeviceError */
  async hasSoundZeros(): Promise<boolean> {
    const block = new Uint8Array(BLOCK_SIZE);
    await this.#readSlots(FixedSlot.zeros, block);
    return isZero(block);
  }

  /** Reads copies and computes their checksums, if the device can do both together; else `undefined`. */
  async #readSummed(block: BlockNumber, slot: Slot, target: Uint8Array): Promise<Uint32Array | undefined> {
    const { device, runs } = this.file;
    if (device.readSummed === undefined) return undefined;
    const offset = runs.locateWhole(offsetOfSlot(slot), target.byteLength);
    if (offset === undefined) return undefined;
    return device.readSummed(offset, target, () =>
      new Uint32Array(target.byteLength / BLOCK_SIZE).map((_, i) => this.#checksum.seed(block + i, slot + i)),
    );
  }

  async #readSlots(slot: Slot, target: Uint8Array): Promise<void> {
    let at = 0;
    for (const piece of this.file.runs.pieces(offsetOfSlot(slot), target.byteLength)) {
      await this.file.device.read(piece.volumeOffset, target.subarray(at, at + piece.length));
      at += piece.length;
    }
  }
}

/** Neighbouring views of one buffer as one view: fewer vectors for the operating system. */
function joined(views: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (const view of views) {
    const last = result.at(-1);
    if (
      last !== undefined &&
      last.buffer === view.buffer &&
      last.byteOffset + last.byteLength === view.byteOffset
    ) {
      result[result.length - 1] = new Uint8Array(
        last.buffer,
        last.byteOffset,
        last.byteLength + view.byteLength,
      );
    } else {
      result.push(view);
    }
  }
  return result;
}

/** Like `Promise.all`, but settles only when every promise has: the buffers are in use until then. */
async function allSettled(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises))
    if (result.status === 'rejected') throw result.reason;
}
