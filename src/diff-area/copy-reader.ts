/** Reads copies out of a diff-area file, and verifies each of them against its checksum. */
import type { Loan } from '../device/block-device.js';
import { SharedMemory } from '../device/shared-memory.js';
import { IntegrityError } from '../errors.js';
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
import type { CopyChecksum } from './copy-checksum.js';

export interface LentCopies {
  readonly loan: Loan;
  readonly position: ByteOffset;
}

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
    await this.#readSlots(slot, target);
    this.#verify(block, slot, target);
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

  /** Lends the copies in `count` consecutive slots to a thread, and says where in its file they begin; `undefined`: it cannot have them. */
  lend(slot: Slot, count: number): LentCopies | undefined {
    const { device, runs } = this.#file;
    const length = count * BLOCK_SIZE;
    const offset = runs.locateWhole(offsetOfSlot(slot), length);
    const loan = offset === undefined ? undefined : device.lend?.(offset, length, 'read');
    return loan && { loan, position: loan.origin + (offset ?? 0) };
  }

  /** @throws IntegrityError unless `data` is what was copied of the blocks from `block` on to the slots from `slot` on */
  #verify(block: BlockNumber, slot: Slot, data: Uint8Array): void {
    for (let i = 0; i * BLOCK_SIZE < data.byteLength; i++) {
      const part = data.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
      this.check(block + i, slot + i, SharedMemory.crc32(part));
    }
  }

  /** @throws IntegrityError unless `sum` is the CRC-32 of what was copied of `block` to `slot` */
  check(block: BlockNumber, slot: Slot, sum: number): void {
    if (this.#checksum.from(block, slot, sum) === this.#table.checksumAt(slot)) return;
    throw new IntegrityError(
      `snapshot ${this.#storeId}: the copy of block ${block} (offset ${offsetOfBlock(block)}) in slot ${slot} fails its checksum`,
    );
  }

  /** Is the block of zeros, which other readers of the format rely on, what it should be? @throws DeviceError */
  async hasSoundZeros(): Promise<boolean> {
    const block = new Uint8Array(BLOCK_SIZE);
    await this.#readSlots(FixedSlot.zeros, block);
    return isZero(block);
  }

  async #readSlots(slot: Slot, target: Uint8Array): Promise<void> {
    let at = 0;
    for (const piece of this.#file.runs.pieces(offsetOfSlot(slot), target.byteLength)) {
      await this.#file.device.read(piece.volumeOffset, target.subarray(at, at + piece.length));
      at += piece.length;
    }
  }
}
