/** Reads copies out of a diff-area file, and verifies each of them against its checksum. */
import { IntegrityError } from '../errors.js';
import { isZero } from '../format/binary.js';
import type { Guid } from '../format/guid.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock, offsetOfSlot, type Slot } from '../units.js';
import { FixedSlot } from './area-slots.js';
import type { BlockTable } from './block-table.js';
import type { CopyChecksum } from './copy-checksum.js';

export class CopyReader {
  readonly #storeId: Guid;
  readonly #file: AreaFile;
  readonly #table: BlockTable;
  readonly #checksum: CopyChecksum;

  constructor(
    area: { readonly storeId: Guid; readonly file: AreaFile; readonly table: BlockTable },
    checksum: CopyChecksum,
  ) {
    this.#storeId = area.storeId;
    this.#file = area.file;
    this.#table = area.table;
    this.#checksum = checksum;
  }

  /**
   * Reads and verifies the copies of consecutive blocks, the first of which is in `slot`; all that `DiffArea.canReadTogether`.
   * @throws IntegrityError, DeviceError
   */
  async read(block: BlockNumber, slot: Slot, target: Uint8Array): Promise<void> {
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

  /** As `read`, at once, if the device does that; `false`: nothing was read. */
  readNow(block: BlockNumber, slot: Slot, target: Uint8Array): boolean {
    if (slot === FixedSlot.zeros) {
      target.fill(0);
      return true;
    }
    const { device, runs } = this.#file;
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
        sums?.[i] ??
        this.#checksum.of(block + i, slot + i, data.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
      if (sum !== this.#table.checksumAt(slot + i)) {
        throw new IntegrityError(
          `snapshot ${this.#storeId}: the copy of block ${block + i} (offset ${offsetOfBlock(block + i)}) in slot ${slot + i} fails its checksum`,
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
    const { device, runs } = this.#file;
    if (device.readSummed === undefined) return undefined;
    const offset = runs.locateWhole(offsetOfSlot(slot), target.byteLength);
    if (offset === undefined) return undefined;
    return device.readSummed(offset, target, () => {
      const seeds = new Uint32Array(target.byteLength / BLOCK_SIZE);
      for (let i = 0; i < seeds.length; i++) seeds[i] = this.#checksum.seed(block + i, slot + i);
      return seeds;
    });
  }

  async #readSlots(slot: Slot, target: Uint8Array): Promise<void> {
    let at = 0;
    for (const piece of this.#file.runs.pieces(offsetOfSlot(slot), target.byteLength)) {
      await this.#file.device.read(piece.volumeOffset, target.subarray(at, at + piece.length));
      at += piece.length;
    }
  }
}
