/**
 * A volume on its way back to a snapshot: which blocks are to be put back still, and what that means for reads and writes.
 *
 * A pending block is answered from the snapshot. A change of one puts the whole block into the volume: its content in
 * the snapshot with the new bytes laid over. It is pending no more when that is durable and marked so (`DoneMarks`), and
 * only then is the change acknowledged. So a flush of the volume covers it, and after a crash a pending block is simply
 * put back once more.
 *
 * Whoever changes pending blocks claims them first, and everybody else who wants to waits. Changes come through the
 * gate, with their blocks copied to the newest snapshot: this is between the gate and the device.
 *
 * Shared state: the pending blocks and the claims; both change between awaits only.
 */
import { allDone } from '../all-done.js';
import { type BlockDevice, writeAll } from '../device/block-device.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { Overlays } from '../diff-area/overlays.js';
import { SnapshotDeletedError } from '../errors.js';
import { clearCatalogOffset, meetsCatalogOffset } from '../format/catalog-offset.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { SnapshotState } from '../format/control-block.js';
import {
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  blocksIn,
  offsetOfBlock,
} from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { DoneMarks } from './done-marks.js';
import type { PendingBlocks } from './pending-blocks.js';
import { readSnapshot } from './reader.js';
import type { SnapshotRecord } from './record.js';

export interface PutBackParts {
  readonly volume: BlockDevice;
  readonly chain: SnapshotChain;
  /** The snapshot that the volume goes back to. */
  readonly source: SnapshotRecord;
  readonly pending: PendingBlocks;
  /** Blocks that there were to put back when it began. */
  readonly total: number;
  /** What was written to that snapshot itself, and is laid over; nobody writes to it meanwhile. */
  readonly overlays: Overlays | undefined;
  /** `undefined` where nothing is written. */
  readonly marks: DoneMarks | undefined;
}

interface BlockRun {
  readonly first: BlockNumber;
  readonly count: number;
}

/** Bytes of one kind, from the end of the run before. */
interface ByteRun {
  readonly end: ByteOffset;
  readonly isPending: boolean;
}

const NOTHING = new Uint8Array(0);

export class PutBack {
  readonly source: SnapshotRecord;
  readonly pending: PendingBlocks;
  readonly total: number;
  readonly #volume: BlockDevice;
  readonly #chain: SnapshotChain;
  readonly #overlays: Overlays | undefined;
  readonly #marks: DoneMarks | undefined;
  /** Pending blocks that are being changed, and when that is over. */
  readonly #claims = new Map<BlockNumber, Promise<void>>();
  /** Where the next run to put back is looked for. */
  #cursor: BlockNumber = 0;

  constructor({ volume, chain, source, overlays, pending, total, marks }: PutBackParts) {
    this.source = source;
    this.pending = pending;
    this.total = total;
    this.#volume = volume;
    this.#chain = chain;
    this.#overlays = overlays;
    this.#marks = marks;
  }

  /** Is a block of the range pending? */
  touches(offset: ByteOffset, length: ByteLength): boolean {
    return length > 0 && this.pending.hasAnyIn(blockOf(offset), blockOf(offset + length - 1) + 1);
  }

  /** Reads the volume as its users see it. @throws DeviceError, IntegrityError */
  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const reads: Promise<void>[] = [];
    let at = offset;
    for (const { end, isPending } of this.runs(offset, target.byteLength)) {
      const part = target.subarray(at - offset, end - offset);
      reads.push(isPending ? this.#readSource(at, part) : this.#volume.read(at, part));
      at = end;
    }
    await allDone(reads);
  }

  /** The range in runs, all of them as they are when this is called. */
  runs(offset: ByteOffset, length: ByteLength): ByteRun[] {
    const end = offset + length;
    const runs: ByteRun[] = [];
    for (let at = offset; at < end; ) {
      const first = blockOf(at);
      const isPending = this.pending.has(first);
      let next = first + 1;
      while (offsetOfBlock(next) < end && this.pending.has(next) === isPending) next++;
      at = Math.min(end, offsetOfBlock(next));
      runs.push({ end: at, isPending });
    }
    return runs;
  }

  /** Is a pending block one of zeros, for certain? */
  isZero(block: BlockNumber): boolean {
    if (this.source.deleted !== undefined || this.source.damage !== undefined) return false;
    if (this.#overlays !== undefined && this.#overlays.slotOf(block) !== -1) return false;
    // What moved is somewhere else, and nobody asks whether it is zero there.
    const area = this.#chain
      .areasFrom(this.source)
      .find(({ table, moves }) => table.has(block) || moves.targetOf(block) !== undefined);
    return area?.table.slotOf(block) === FixedSlot.zeros;
  }

  async #readSource(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const { source } = this;
    if (source.damage !== undefined) throw source.damage;
    try {
      await source.whileReading(async () => {
        await this.#readSnapshot(offset, target);
        const isBase = (source.state & SnapshotState.base) !== 0;
        if (isBase && meetsCatalogOffset(offset, target.byteLength)) await this.#hideCatalog(offset, target);
      });
    } catch (error) {
      if (!(error instanceof SnapshotDeletedError)) throw error;
      // All was put back meanwhile, and then the snapshot was deleted.
      await this.#volume.read(offset, target);
    }
  }

  async #readSnapshot(offset: ByteOffset, target: Uint8Array): Promise<void> {
    await readSnapshot(() => this.#chain.areasFrom(this.source), this.#volume, offset, target);
    await this.#overlays?.layOverRange(offset, target);
  }

  /** The base of shadow copies has the start block of Windows as it was; in the volume that leads to no catalog. */
  async #hideCatalog(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const sector = new Uint8Array(START_BLOCK_SIZE);
    await this.#readSnapshot(START_BLOCK_OFFSET, sector);
    clearCatalogOffset(sector);
    const skipped = Math.max(0, offset - START_BLOCK_OFFSET);
    const at = Math.max(0, START_BLOCK_OFFSET - offset);
    target.set(sector.subarray(skipped, skipped + target.byteLength - at), at);
  }

  /** Writes bytes, and with them what is missing of the pending blocks that they lie in. @throws DeviceError, IntegrityError, NoSpaceError */
  async write(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const length = sources.reduce((sum, { byteLength }) => sum + byteLength, 0);
    await this.#change(offset, length, (before, after) => {
      const all = [before, ...sources, after].filter(({ byteLength }) => byteLength > 0);
      return writeAll(this.#volume, offset - before.byteLength, all);
    });
  }

  /** Does something else to a range, and writes what is missing of the pending blocks at its ends. @throws as `write` */
  async change(offset: ByteOffset, length: ByteLength, action: () => Promise<void>): Promise<void> {
    await this.#change(offset, length, async (before, after) => {
      if (before.byteLength > 0) await this.#volume.write(offset - before.byteLength, before);
      await action();
      if (after.byteLength > 0) await this.#volume.write(offset + length, after);
    });
  }

  async #change(
    offset: ByteOffset,
    length: ByteLength,
    apply: (before: Uint8Array, after: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const first = blockOf(offset);
    const end = blockOf(offset + length - 1) + 1;
    for (let claim = this.#claimIn(first, end); claim !== undefined; claim = this.#claimIn(first, end))
      await claim;
    // From the last look to the claim nothing else runs.
    const run = this.#pendingIn(first, end);
    if (run === undefined) return apply(NOTHING, NOTHING);
    await this.#claiming(run, async () => {
      const blockStart = offsetOfBlock(first);
      const blockEnd = Math.min(offsetOfBlock(end), this.#volume.size);
      const before = run.first === first ? await this.#sourceBytes(blockStart, offset) : NOTHING;
      const isLast = run.first + run.count === end;
      const after = isLast ? await this.#sourceBytes(offset + length, blockEnd) : NOTHING;
      await apply(before, after);
    });
  }

  async #sourceBytes(from: ByteOffset, to: ByteOffset): Promise<Uint8Array> {
    const bytes = new Uint8Array(to - from);
    if (bytes.byteLength > 0) await this.#readSource(from, bytes);
    return bytes;
  }

  /** From the first to the last pending block of `[first, end)`. */
  #pendingIn(first: BlockNumber, end: BlockNumber): BlockRun | undefined {
    const start = this.pending.next(first, end);
    if (start === undefined) return undefined;
    let last = end - 1;
    while (!this.pending.has(last)) last--;
    return { first: start, count: last + 1 - start };
  }

  /** What to wait for before a block of `[first, end)` can be claimed; `undefined`: nothing. */
  #claimIn(first: BlockNumber, end: BlockNumber): Promise<void> | undefined {
    for (let block: number = first; block < end && this.#claims.size > 0; block++) {
      const claim = this.#claims.get(block);
      if (claim !== undefined) return claim;
    }
    return undefined;
  }

  /** Claims the pending blocks of the run, which nobody else has; after `write` what they are to hold is in the volume. */
  async #claiming({ first, count }: BlockRun, write: () => Promise<void>): Promise<void> {
    let over: () => void = () => undefined;
    const claim = new Promise<void>((resolve) => {
      over = resolve;
    });
    for (let block = first; block < first + count; block++) this.#claims.set(block, claim);
    try {
      await write();
      await this.#marks?.record(first, count);
      this.pending.delete(first, count);
    } finally {
      for (let block = first; block < first + count; block++) this.#claims.delete(block);
      over();
    }
  }

  /**
   * Puts the next run of pending blocks back. Called by one who has passed the gate.
   * @param protect sees to it that the newest snapshot has its copies
   * @returns how many blocks; 0 if the rest are being changed by others, or there are none
   */
  async putBackSome(
    blocksMax: number,
    protect: (offset: ByteOffset, length: ByteLength) => Promise<void> | undefined,
  ): Promise<number> {
    const run = this.#nextRun(blocksMax);
    if (run === undefined) return 0;
    const offset = offsetOfBlock(run.first);
    const end = Math.min(offsetOfBlock(run.first + run.count), this.#volume.size);
    await this.#claiming(run, async () => {
      const copies = protect(offset, end - offset);
      const [copied, read] = await Promise.allSettled([copies, this.#sourceBytes(offset, end)]);
      if (copied.status === 'rejected') throw copied.reason;
      if (read.status === 'rejected') throw read.reason;
      await this.#volume.write(offset, read.value);
    });
    this.#cursor = run.first + run.count;
    return run.count;
  }

  /** Pending blocks that nobody has claimed, neighbours, from the cursor on or else from the beginning. */
  #nextRun(blocksMax: number): BlockRun | undefined {
    const blockCount = blocksIn(this.#volume.size);
    const first = this.#nextFree(this.#cursor, blockCount) ?? this.#nextFree(0, this.#cursor);
    if (first === undefined) return undefined;
    let count = 1;
    while (count < blocksMax && this.#isFree(first + count)) count++;
    return { first, count };
  }

  #nextFree(from: BlockNumber, end: BlockNumber): BlockNumber | undefined {
    let block = this.pending.next(from, end);
    while (block !== undefined && this.#claims.has(block)) block = this.pending.next(block + 1, end);
    return block;
  }

  #isFree(block: BlockNumber): boolean {
    return this.pending.has(block) && !this.#claims.has(block);
  }

  /** Resolves when those who have claims now are done. */
  async settled(): Promise<void> {
    await Promise.all(new Set(this.#claims.values()));
  }
}
