/**
 * Copy-on-write: saves a block before its first overwrite since the newest snapshot.
 *
 *     protect ──► batch (collects while the copy pool is busy)
 *                   │ copy pool: read originals, reserve slots, write copies
 *                   ▼
 *                 copied ──► commit pool: entries of all copied batches, one flush, publish, wake the writers
 *
 * Invariant: a block is published in the table before the write that waited for it reaches the volume, and its copy and
 * entry are durable by then. So a crash at any point leaves the copy, or the original still in the volume.
 *
 * When the newest snapshot is deleted, its elder becomes the target at once (`redirect`). What the deleted one has a copy of
 * needs none: it is merged into the elder in time. Copies that are on their way to it end there, and are merged too.
 *
 * Shared state, all of it changed only between awaits: `#target` and `#merging`, the temporary table `#inFlight` (block → its
 * batch; a block is never in two batches), and the collecting batch.
 */
import { allDone } from '../all-done.js';
import type { BlockDevice } from '../device/block-device.js';
import { BufferPool } from '../device/buffer-pool.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import { CRC32_OF_ZEROS } from '../diff-area/copy-checksum.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Move } from '../diff-area/moves.js';
import type { Clock } from '../environment.js';
import { assert } from '../errors.js';
import { type BlockNumber, type ByteLength, type ByteOffset, blockOf } from '../units.js';
import { Attempts } from './attempts.js';
import { Batch, type CopiedBatch } from './batch.js';
import { Commits } from './commits.js';
import { type Apart, CopyFigures, type CopyOnWriteHost } from './copy-host.js';
import { Gathering } from './gathering.js';
import { MemoryBudget } from './memory-budget.js';
import { MoveRecords } from './move-records.js';
import { isZeroBlock, readBlocks } from './originals.js';
import type { Pools } from './pools.js';
import { endOf } from './room-aside.js';

export class CopyOnWrite {
  readonly #volume: BlockDevice;
  readonly #pools: Pools;
  readonly #memory: MemoryBudget;
  readonly #buffers: BufferPool;
  readonly #host: CopyOnWriteHost;
  readonly #apart: Apart | undefined;
  readonly #attempts: Attempts;
  readonly #inFlight = new Map<BlockNumber, Batch>();
  readonly #commits: Commits;
  readonly #moves: MoveRecords;
  #collecting: Batch | undefined;
  #target: DiffArea | undefined;
  /** Diff areas newer than the target, of deleted snapshots: what they have, the target will have. */
  #merging: readonly DiffArea[] = [];
  readonly figures = new CopyFigures();
  /** Who waits for copies that others were told of as done says so here. */
  readonly gathering: Gathering;

  constructor(
    clock: Clock,
    volume: BlockDevice,
    pools: Pools,
    memoryLimit: ByteLength,
    host: CopyOnWriteHost,
    apart?: Apart,
  ) {
    this.gathering = new Gathering(clock);
    this.#volume = volume;
    this.#pools = pools;
    this.#memory = new MemoryBudget(memoryLimit);
    this.#buffers = new BufferPool(memoryLimit / 2);
    this.#host = host;
    this.#apart = apart;
    this.#attempts = new Attempts(host, this.figures, (batch, error) => this.#end(batch, error));
    this.#commits = new Commits({
      pools,
      attempts: this.#attempts,
      figures: this.figures,
      wants: (area) => this.#wants(area),
      end: (batch) => this.#end(batch),
    });
    this.#moves = new MoveRecords({
      pools,
      attempts: this.#attempts,
      figures: this.figures,
      reserve: (area, entries) => this.#reserve(area, 0, entries),
      // What is being merged into it may have other content of the targets: then the sources are copied as ever.
      takesMoves: (area) => area === this.#target && this.#merging.length === 0,
    });
  }

  /** The diff area that copies go to: that of the newest snapshot. */
  get target(): DiffArea | undefined {
    return this.#target;
  }

  /** Changes the target. A new snapshot may only become it while writes are held and nothing is in flight. */
  setTarget(area: DiffArea | undefined): void {
    assert(
      area === undefined || this.#inFlight.size === 0,
      () => `${this.#inFlight.size} blocks in flight at a change of target`,
    );
    this.#target = area;
    this.#merging = [];
  }

  /**
   * Snapshots were deleted: copies go to `area` from now on, and what is in one of `merging`, which are newer, needs none.
   * Copies in flight to any of these end there; those in flight to others are given up.
   */
  redirect(area: DiffArea | undefined, merging: readonly DiffArea[]): void {
    if (area !== this.#target) this.#collect(undefined);
    this.#target = area;
    this.#merging = merging;
  }

  /** Do copies still come to `area`? */
  takesCopies(area: DiffArea): boolean {
    if (area === this.#target) return true;
    for (const batch of this.#inFlight.values()) if (batch.area === area) return true;
    return false;
  }

  /** Are copies that are on their way to `area` still wanted? */
  #wants(area: DiffArea): boolean {
    return area === this.#target || this.#merging.includes(area);
  }

  /** Is a copy of the block there, or will it be without anything being copied? */
  #needs(area: DiffArea, block: BlockNumber): boolean {
    // A copy of what is skipped since it began is published all the same, so no write may overtake it.
    if (!area.needs(block)) return area.unused !== undefined && this.#inFlight.get(block)?.area === area;
    for (const { table } of this.#merging) if (table.has(block)) return false;
    return true;
  }

  /** Would a write of the range have to wait for copies? */
  needsCopies(offset: ByteOffset, length: ByteLength): boolean {
    const area = this.#target;
    if (area === undefined || length === 0) return false;
    const end = endOf(area, offset, length);
    for (let block: number = blockOf(offset); block < end; block++) if (this.#needs(area, block)) return true;
    return false;
  }

  /**
   * Sees to it that every block of the range has its copy if it needs one.
   * @returns `undefined` if nothing has to be waited for; else a promise after which the range may be overwritten
   */
  protect(offset: ByteOffset, length: ByteLength): Promise<void> | undefined {
    const area = this.#target;
    if (area === undefined || length === 0) return undefined;
    const end = endOf(area, offset, length);
    let waits: Batch[] | undefined;
    for (let block: number = blockOf(offset); block < end; block++) {
      if (!this.#needs(area, block)) continue;
      const batch = this.#inFlight.get(block) ?? this.#enqueue(area, block);
      waits ??= [];
      if (waits.at(-1) !== batch) waits.push(batch);
    }
    if (waits === undefined) return undefined;
    if (waits.length === 1) return waits[0]?.done;
    // All are waited for: a write that fails must not leave copies of its range under way.
    return allDone(waits.map(({ done }) => done));
  }

  #enqueue(area: DiffArea, block: BlockNumber): Batch {
    if (area.uncommitted.has(block)) return this.#commitAgain(area, block);
    const isAside = area.ahead.has(block);
    if (this.#collecting?.isAside !== isAside) this.#collect(undefined);
    const batch = this.#collecting ?? this.#start(new Batch(area, isAside));
    batch.blocks.push(block);
    this.#inFlight.set(block, batch);
    if (batch.isFull) this.#collect(undefined);
    return batch;
  }

  #start(batch: Batch): Batch {
    this.#collect(batch);
    const run = () => void this.#pools.copy.add(() => this.#run(batch));
    const grown = batch.isAside ? this.gathering.grow(batch) : undefined;
    void (grown === undefined ? run() : grown.then(run));
    return batch;
  }

  /** The one that collected before takes no more. */
  #collect(batch: Batch | undefined): void {
    if (this.#collecting !== undefined) this.gathering.end(this.#collecting);
    this.#collecting = batch;
  }

  /** The block has a copy that only waits to be committed. */
  #commitAgain(area: DiffArea, block: BlockNumber): Batch {
    const batch = new Batch(area, true);
    batch.blocks.push(block);
    this.#inFlight.set(block, batch);
    this.#commits.add({ batch, blocks: [], slots: [], checksums: [] });
    return batch;
  }

  /** Task of the copy pool. Never rejects. */
  async #run(batch: Batch): Promise<void> {
    // Writes that arrive in the same turn of the event loop still join the batch.
    await Promise.resolve();
    if (!batch.isAside) await this.gathering.growMeanwhile(batch, () => this.#commits.isUnderWay);
    if (this.#collecting === batch) this.#collect(undefined);
    if (batch.blocks.length > 1) batch.blocks.sort((a, b) => a - b);
    if (this.#isForApart(batch) && (await this.#copyApart(batch))) return;
    const room = this.#memory.acquire(batch.bytes);
    if (room !== undefined) await room;
    try {
      const buffer = this.#buffers.take(batch.bytes);
      const originals = await this.#readOriginals(batch.blocks, buffer);
      await this.#attempts.make([batch], () => this.#copy(batch, originals));
      this.#buffers.give(buffer);
    } catch (error) {
      // The volume itself cannot be read: its writes fail, and nothing is lost. Unless nobody needs the copy any more.
      this.#end(batch, this.#wants(batch.area) ? error : undefined);
    } finally {
      this.#memory.release(batch.bytes);
    }
  }

  /** Is the batch worth a request to another thread? */
  #isForApart({ area, blocks }: Batch): boolean {
    const apart = this.#apart;
    return apart !== undefined && blocks.length >= apart.smallest && this.#wants(area) && apart.copier.isFree;
  }

  /**
   * Copies a batch in another thread, where everything is as it usually is. Never rejects.
   * @returns false if nothing was done; then it has to be done here, and whatever was wrong shows again
   */
  async #copyApart(batch: Batch): Promise<boolean> {
    const { area, blocks } = batch;
    const copier = this.#apart?.copier;
    if (copier === undefined) return false;
    // Zeros are not known yet: a slot for each block, if that takes no room that is not there.
    const slots = area.reserve(blocks.length, blocks.length, blocks);
    if (slots === undefined) return false;
    const copying = copier.copy(this.#volume, area, blocks, slots).catch(() => undefined);
    const copied = await this.#commits.whileCopying(copying);
    if (copied === undefined || !this.#wants(area)) {
      area.cancel(slots, blocks.length, blocks);
      return false;
    }
    this.#host.growAhead(area);
    const { sums, zeros } = copied;
    if (zeros.length > 0)
      area.cancel(
        zeros.map((i) => slots[i] ?? 0),
        0,
      );
    for (const i of zeros) {
      slots[i] = FixedSlot.zeros;
      sums[i] = CRC32_OF_ZEROS;
    }
    const checksums = sums.map((sum, i) => area.checksumFrom(blocks[i] ?? 0, slots[i] ?? 0, sum));
    this.#enter({ batch, blocks, slots, checksums }, zeros.length);
    return true;
  }

  /** Resolves to false if no copy is needed any more. */
  async #copy(batch: Batch, originals: readonly Uint8Array[]): Promise<boolean> {
    const { area, blocks } = batch;
    const stored: Uint8Array[] = originals.filter((data) => !isZeroBlock(data));
    const reserved = await this.#reserve(area, stored.length, blocks.length, blocks);
    if (reserved === undefined) return false;
    let next = 0;
    const slots = originals.map((data) =>
      data === stored[next] ? (reserved[next++] ?? 0) : FixedSlot.zeros,
    );
    // Before the write, while the processor's cache still has what was read.
    const checksums = originals.map((data, i) => area.checksum(blocks[i] ?? 0, slots[i] ?? 0, data));
    try {
      await area.writeData(reserved, stored);
    } catch (error) {
      area.cancel(reserved, blocks.length, blocks);
      throw error;
    }
    this.#enter({ batch, blocks, slots, checksums }, blocks.length - stored.length);
    return true;
  }

  /** The copies are written; they will be committed. */
  #enter(copied: CopiedBatch, zeros: number): void {
    this.figures.batches++;
    this.figures.copiedBlocks += copied.blocks.length - zeros;
    this.figures.zeroBlocks += zeros;
    this.#commits.add(copied);
  }

  /** One failure may be a passing one; the second counts. */
  async #readOriginals(blocks: readonly BlockNumber[], buffer: Uint8Array): Promise<Uint8Array[]> {
    try {
      return await readBlocks(this.#volume, blocks, buffer);
    } catch {
      this.figures.failures++;
      return readBlocks(this.#volume, blocks, buffer);
    }
  }

  async #reserve(area: DiffArea, slots: number, entries: number, blocks: readonly BlockNumber[] = []) {
    for (;;) {
      if (!this.#wants(area)) return undefined;
      const reserved = area.reserve(slots, entries, blocks);
      if (reserved !== undefined) {
        this.#host.growAhead(area);
        return reserved;
      }
      if (!(await this.#host.makeRoom(area, slots, entries))) return undefined;
    }
  }

  /** See `MoveRecords.commit`. */
  commitMoves(area: DiffArea, moves: readonly Move[]): Promise<void> {
    return this.#moves.commit(area, moves);
  }

  /** The batch is over: its writers go on, or fail with `error`. */
  #end(batch: Batch, error?: unknown): void {
    this.#remove(batch);
    if (error === undefined) batch.finish();
    else batch.fail(error);
  }

  #remove(batch: Batch): void {
    for (const block of batch.blocks) this.#inFlight.delete(block);
  }

  /** Resolves when nothing is under way any more. Never rejects. */
  async idle(): Promise<void> {
    const leisure = this.gathering.hurry();
    while (this.#inFlight.size > 0)
      await Promise.allSettled([...new Set(this.#inFlight.values())].map((batch) => batch.done));
    leisure();
  }

  /** To be called when nothing is under way any more. */
  async close(): Promise<void> {
    await this.#apart?.copier.close();
  }

  /** Resolves when no batch of `area`, which is the target no longer, is under way, and no moves are. Never rejects. */
  async drained(area: DiffArea): Promise<void> {
    const all = [...this.#inFlight.values(), ...this.#moves.underWay];
    const batches = new Set(all.filter((batch) => batch.area === area));
    const leisure = this.gathering.hurry();
    await Promise.allSettled([...batches].map((batch) => batch.done));
    leisure();
  }
}
