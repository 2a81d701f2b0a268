/**
 * Copy-on-write for a volume that Windows wrote: before a block that a shadow copy still reads from the volume is overwritten, its
 * content is copied into the free part of the newest store, and entered in its table.
 *
 *     protect ──► group (collects while another is under way)
 *                   │ read originals, write copies and new table blocks
 *                   │ flush
 *                   │ write the entries, and the link to a new table block
 *                   │ flush
 *                   ▼
 *                 publish, wake the writers
 *
 * Two flushes a group, not one as in a store of ours: entries of Windows carry no checksum, so an entry must not get to the device
 * before its copy. A crash at any point leaves the block's content in the volume, or a whole entry with a whole copy. A sector of 512
 * bytes is written whole or not at all; all of the format relies on that, its control items too.
 *
 * Shared state, changed only between awaits: the temporary table `#inFlight` (block → its group), the groups that wait, and what is
 * reserved. Only the one group under way takes slots and touches the table.
 */
import { allDone } from '../all-done.js';
import type { BlockDevice } from '../device/block-device.js';
import { DeviceError, ReadOnlyError } from '../errors.js';
import { hex } from '../format/binary.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
} from '../units.js';
import type { CopyTarget } from './copy-target.js';
import { DeviceReads } from './device-reads.js';
import type { FreeSlot } from './free-slots.js';
import type { StoreGuard } from './store-guard.js';
import type { TableWriter } from './table-writer.js';

/** Blocks that are copied together: 4 MiB of memory. */
const GROUP_BLOCKS_MAX = 256;

/** What is to happen when something cannot be done without losing shadow copies. */
export interface CopyPolicy {
  /**
   * There is no room for copies, or a store would be overwritten. Resolves when there are no shadow copies any more.
   * @throws `refusal`, which the writer is told, if they are to stay
   */
  giveUp(refusal: Error): Promise<void>;
}

interface NeededBlock {
  readonly block: BlockNumber;
  readonly entries: 1 | 2;
}

/** Blocks that are copied together, and those who wait for it. */
class Group {
  readonly blocks: NeededBlock[] = [];
  readonly done: Promise<void>;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Who waits hears of a failure; a group that nobody waits for any more must not end the process.
    this.done.catch(() => undefined);
  }

  finish(): void {
    this.#settle?.resolve();
  }

  fail(error: unknown): void {
    this.#settle?.reject(error);
  }
}

export class ForeignCopies {
  readonly #device: BlockDevice;
  readonly #guard: StoreGuard;
  readonly #policy: CopyPolicy;
  readonly #inFlight = new Map<BlockNumber, Group>();
  readonly #waiting: Group[] = [];
  #buffer: Uint8Array | undefined;
  #target: CopyTarget | undefined;
  #running: Promise<void> | undefined;
  /** Why nothing is copied any more: what the table on the device holds is not known. */
  #failure: Error | undefined;
  readonly figures = { copiedBlocks: 0, groups: 0, failures: 0 };

  /** @param target `undefined`: there is no shadow copy that anything is to be kept for */
  constructor(device: BlockDevice, target: CopyTarget | undefined, guard: StoreGuard, policy: CopyPolicy) {
    this.#device = device;
    this.#target = target;
    this.#guard = guard;
    this.#policy = policy;
  }

  /** Where copies go; `undefined` when there are no shadow copies. */
  get target(): CopyTarget | undefined {
    return this.#target;
  }

  /** There are no shadow copies any more. */
  end(): void {
    this.#target = undefined;
  }

  /**
   * Sees to it that every block of the range has its copy if it needs one.
   * @returns `undefined` if nothing has to be waited for; else a promise after which the range may be overwritten, and which rejects
   *   if it must not: ReadOnlyError (the stores themselves lie there), NoSpaceError, DeviceError. Then nothing was changed.
   */
  protect(offset: ByteOffset, length: ByteLength): Promise<void> | undefined {
    if (length === 0) return undefined;
    const store = this.#guard.meets(offset, length);
    if (store !== undefined) {
      const refusal = new ReadOnlyError(
        `${length} bytes at offset ${offset} of ${this.#device.name} would overwrite the stores of its shadow copies (at ${hex(store.offset)})`,
      );
      return store.isOwn ? this.#giveUpFor(refusal, offset, length) : Promise.reject(refusal);
    }
    const target = this.#target;
    if (target === undefined) return undefined;
    const waits = new Set<Group>();
    const needed: NeededBlock[] = [];
    let entries = 0;
    for (let block: number = blockOf(offset); offsetOfBlock(block) < offset + length; block++) {
      const group = this.#inFlight.get(block);
      if (group !== undefined) waits.add(group);
      else {
        const count = target.needs.entriesFor(block);
        if (count === 0) continue;
        needed.push({ block, entries: count });
        entries += count;
      }
    }
    if (needed.length > 0) {
      if (this.#failure !== undefined) return Promise.reject(this.#failure);
      const refusal = target.reserve(needed.length, entries);
      if (refusal !== undefined) return this.#giveUpFor(refusal, offset, length);
      for (const each of needed) waits.add(this.#enqueue(each));
    }
    if (waits.size === 0) return undefined;
    // All are waited for: a write that fails must not leave copies of its range under way.
    return allDone(Array.from(waits, ({ done }) => done));
  }

  /** Then the range is asked about again; without shadow copies nothing is left to refuse. */
  async #giveUpFor(refusal: Error, offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#policy.giveUp(refusal);
    await this.protect(offset, length);
  }

  #enqueue(needed: NeededBlock): Group {
    let group = this.#waiting.at(-1);
    if (group === undefined || group.blocks.length === GROUP_BLOCKS_MAX) {
      group = new Group();
      this.#waiting.push(group);
    }
    group.blocks.push(needed);
    this.#inFlight.set(needed.block, group);
    this.#running ??= this.#run();
    return group;
  }

  /** Works off the groups, one at a time: a table has one end. Never rejects. */
  async #run(): Promise<void> {
    // Writes that arrive in the same turn of the event loop still join the first group.
    await Promise.resolve();
    for (let group = this.#waiting.shift(); group !== undefined; group = this.#waiting.shift()) {
      group.blocks.sort((a, b) => a.block - b.block);
      try {
        await this.#copy(group.blocks);
        group.finish();
      } catch (error) {
        this.figures.failures++;
        group.fail(error);
      }
      for (const { block } of group.blocks) this.#inFlight.delete(block);
    }
    this.#running = undefined;
  }

  async #copy(blocks: readonly NeededBlock[]): Promise<void> {
    const target = this.#target;
    // Nobody needs what was waiting when the last shadow copy went.
    if (target === undefined) return;
    const { slots, table } = target;
    let left = blocks.length;
    let entries = blocks.reduce((sum, block) => sum + block.entries, 0);
    try {
      if (this.#failure !== undefined) throw this.#failure;
      const originals = await this.#readOriginals(blocks);
      const copies = blocks.map((needed) => ({ ...needed, slot: slots.take() }));
      target.release(left, 0);
      left = 0;
      await this.#writeCopies(copies, originals);
      for (const { block, slot, entries: count } of copies)
        target.writer.append(block, slot, count, () => slots.take());
      target.release(0, entries);
      entries = 0;
      // The table in memory is ahead of the device now: whatever fails ends all copying.
      await this.#writeTable(target.writer).catch((error: unknown) => {
        throw this.#fail(error);
      });
      for (const { block, entries: count, slot } of copies) table.addCopy(block, slot.volumeOffset, count);
      this.figures.copiedBlocks += copies.length;
      this.figures.groups++;
    } finally {
      target.release(left, entries);
    }
  }

  async #readOriginals(blocks: readonly NeededBlock[]): Promise<Uint8Array> {
    this.#buffer ??= new Uint8Array(GROUP_BLOCKS_MAX * BLOCK_SIZE);
    const buffer = this.#buffer.subarray(0, blocks.length * BLOCK_SIZE);
    const reads = new DeviceReads(this.#device);
    for (const [index, { block }] of blocks.entries()) {
      const part = buffer.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE);
      const length = Math.min(BLOCK_SIZE, this.#device.size - offsetOfBlock(block));
      part.fill(0, length);
      await reads.add(offsetOfBlock(block), part.subarray(0, length), block);
    }
    await reads.finish();
    return buffer;
  }

  /** Slots that follow each other are written together. */
  async #writeCopies(copies: readonly { readonly slot: FreeSlot }[], content: Uint8Array): Promise<void> {
    for (let from = 0, to: number; from < copies.length; from = to) {
      const start = copies[from]?.slot.volumeOffset ?? 0;
      to = from + 1;
      while (copies[to]?.slot.volumeOffset === start + (to - from) * BLOCK_SIZE) to++;
      await this.#device.write(start, content.subarray(from * BLOCK_SIZE, to * BLOCK_SIZE));
    }
  }

  async #writeTable(writer: TableWriter): Promise<void> {
    const { fresh, linked } = writer.pending();
    for (const { offset, bytes } of fresh) await this.#device.write(offset, bytes);
    await this.#device.flush();
    for (const { offset, bytes } of linked) await this.#device.write(offset, bytes);
    await this.#device.flush();
    writer.written();
  }

  #fail(error: unknown): Error {
    this.#failure ??= new DeviceError(
      `the table of the newest shadow copy of ${this.#device.name} could not be written; writes that need a copy are refused until the volume is opened again`,
      { cause: error },
    );
    return this.#failure;
  }

  /** Resolves when nothing is being copied. Never rejects. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }
}
