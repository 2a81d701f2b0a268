/** The snapshots of a volume in a store of volsnap. */
import { allDone } from '../all-done.js';
import { codeOf } from '../device/system-error.js';
import { DeviceError, InvalidArgumentError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { deleteSnapshot } from '../snapshot/delete.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { RevertOperation, RevertOptions } from '../snapshot/revert-operation.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { BLOCK_SIZE } from '../units.js';
import { blocksChanged, type ChangedExtent, changedExtents } from './changed-blocks.js';
import { withoutEqualFirstBlock } from './compare.js';
import type { Engine } from './engine.js';
import type { ChangedOptions, History, VolumeFigures } from './history.js';
import { closeAreas } from './open.js';
import { StoredSnapshot } from './stored-snapshot.js';
import type { TakenOver } from './taken-over.js';

export class StoredHistory implements History {
  readonly #engine: Engine;
  readonly #writable: boolean;
  /** Called once, before anything is closed. */
  onClose: () => void = () => undefined;
  readonly #handles = new WeakMap<SnapshotRecord, StoredSnapshot>();
  /** Shadow copies of Windows, older than all that the engine has. */
  readonly #takenOver: TakenOver | undefined;

  constructor(engine: Engine, writable: boolean, takenOver?: TakenOver) {
    this.#engine = engine;
    this.#writable = writable;
    this.#takenOver = takenOver;
  }

  get volume() {
    return this.#engine.live;
  }

  get snapshots(): readonly Snapshot[] {
    const own = this.#engine.chain.visible.map((record) => this.handleOf(record));
    return [...(this.#takenOver?.snapshots ?? []), ...own];
  }

  /** Always the same object for the same snapshot. */
  handleOf(record: SnapshotRecord): StoredSnapshot {
    let handle = this.#handles.get(record);
    if (handle === undefined) {
      handle = new StoredSnapshot(this.#engine, record, this.#writable);
      this.#handles.set(record, handle);
    }
    return handle;
  }

  /** @throws see `RevertOperation` */
  revert(snapshot: Snapshot, options: RevertOptions): RevertOperation {
    return this.#engine.reverts.start(snapshot.storeId, options);
  }

  get figures(): VolumeFigures {
    const { store, chain, copyOnWrite, pools, gate, space, writes, merging, figures, reverts, scrubs } =
      this.#engine;
    // What is in memory in place of diff areas takes no space of the store.
    const records = chain.records.filter(({ hasStandIn }) => !hasStandIn);
    const areas = records.flatMap(({ area }) => area ?? []);
    const deleted = records.filter(
      ({ deleted, expired, isLate }) => !isLate && (deleted ?? expired) !== undefined,
    );
    return {
      layout: store.layout,
      storeName: store.name,
      usedBytes: areas.reduce((sum, area) => sum + area.usedBytes, 0),
      allocatedBytes: store.allocated(),
      maximumBytes: store.control.start.maximumSize,
      revert: reverts.status,
      space: space.figures,
      scrub: scrubs.status,
      late: this.#engine.late?.figures,
      tableMemoryBytes: areas.reduce(
        (sum, area) => sum + area.table.memoryBytes + (area.unused?.memoryBytes ?? 0),
        0,
      ),
      copies: copyOnWrite.figures,
      deletion: {
        ...merging.figures,
        snapshots: deleted.length,
        allocatedBytes: deleted.reduce((sum, { area }) => sum + (area?.allocatedBytes ?? 0), 0),
      },
      queues: { ...pools.lengths, held: gate.queued },
      writeBuffer: writes?.figures,
      lastHoldMs: figures.holdMs,
    };
  }

  async *changed({
    since,
    until,
    copiedOnly,
    offset,
    length,
  }: ChangedOptions): AsyncGenerator<ChangedExtent> {
    const { chain, store, live, writes } = this.#engine;
    // The tables know of what is in the volume, not of what is in the buffer.
    if (until === undefined) await writes?.drained();
    // All shadow copies of Windows are older than the first snapshot of volsnap.
    const elders = this.#takenOver?.changed(since, until) ?? [];
    const placeOf = (side: Snapshot) =>
      this.#takenOver?.find(side) === undefined ? chain.indexOf(this.#recordOf(side)) : -1;
    const from = placeOf(since);
    // Blocks that a revert has still to put back have changed too: those with a copy in its target or a newer snapshot.
    const target = until === undefined ? chain.keeping.from : undefined;
    const first = target === undefined ? from : Math.min(from, chain.indexOf(target));
    const end = until === undefined ? chain.records.length : placeOf(until);
    if (end < from) {
      throw new InvalidArgumentError(
        `snapshot ${since.id} is newer than ${until?.id}; give the older one first`,
      );
    }
    const areas = (some: readonly SnapshotRecord[]) => some.flatMap(({ area }) => area ?? []);
    const later = until === undefined ? [] : chain.records.slice(Math.max(0, end));
    const passed = areas(chain.records.slice(Math.max(0, first), Math.max(0, end)));
    // What was written to either side itself shows there alone; what was written to the target of a revert, in the volume too.
    const sides = since.storeId === until?.storeId ? [] : [since, until];
    const written = [...sides.map((side) => side && chain.find(side.storeId)), target].flatMap(
      (record) => record?.area?.overlays ?? [],
    );
    const changed =
      copiedOnly === true
        ? [...elders, ...passed.map(({ table }) => table)]
        : [...elders, ...blocksChanged(passed, areas(later)), ...written];
    const size = until?.size ?? live.size;
    for (const extent of changedExtents(changed, { sizeBefore: since.size, size, offset, length })) {
      // Such a store keeps a copy of block 0 in every snapshot, changed or not.
      if (extent.offset < BLOCK_SIZE && store.hidesStartBlock)
        yield* withoutEqualFirstBlock(since, until ?? live, extent);
      else yield extent;
    }
  }

  #recordOf(snapshot: Snapshot): SnapshotRecord {
    const record = this.#engine.chain.find(snapshot.storeId);
    if (snapshot.state === 'deleted') throw new SnapshotDeletedError(`snapshot ${snapshot.id} is gone`);
    if (record === undefined)
      throw new InvalidArgumentError(`snapshot ${snapshot.id} is not one of this volume, or gone`);
    if (record.damage !== undefined) throw record.damage;
    return record;
  }

  async close(): Promise<void> {
    const { gate, writes, pools, chain, store, merging, copyOnWrite, threadReads, reverts, scrubs, late } =
      this.#engine;
    this.onClose();
    merging.stop();
    try {
      await late?.stop();
      await scrubs.stop();
      await reverts.stop();
      // If that fails, acknowledged writes are lost: the close is not a clean one, and says so.
      await writes?.drained();
      await late?.giveUpCopies();
      if (this.#writable) await this.#flushSnapshots();
      if (this.#writable && gate.failure === undefined) {
        await this.#release();
        await gate.hold(undefined);
        await pools.idle();
        await this.#recordClean();
      }
    } finally {
      writes?.close();
      await copyOnWrite.idle();
      await pools.idle();
      await copyOnWrite.close();
      await threadReads.close();
      await closeAreas(chain.records);
      await store.close();
    }
  }

  /**
   * The owner goes, and what was to go with it. What cannot be deleted now (a revert may need it) is at the next opening, and
   * what older ones read through is merged then.
   */
  async #release(): Promise<void> {
    const { chain, store, pools, emit } = this.#engine;
    try {
      for (const record of [...chain.records]) {
        if ((record.state & SnapshotState.autoRelease) === 0 || record.deleted !== undefined) continue;
        if (chain.keeping.mayGo(record)) await deleteSnapshot(this.#engine, record, 'released');
      }
    } catch (error) {
      emit('backgroundFailure', { id: store.name, what: 'releasing snapshots', error });
    }
    await pools.idle();
  }

  /** What was written to snapshots themselves. @throws what the first that failed threw, when all have been tried */
  async #flushSnapshots(): Promise<void> {
    const { visible } = this.#engine.chain;
    await allDone(visible.map((record) => this.handleOf(record).flushWrites()));
  }

  /** Everything durable, and written down that it is: the next opening need not look for what a crash left. */
  async #recordClean(): Promise<void> {
    const { chain, store, device } = this.#engine;
    // Those that took copies last: the newest there is, and deleted ones after it.
    for (const { area, hasStandIn } of chain.latest) {
      // The flush of a stand-in would say that there are copies in it.
      if (area === undefined || area.isCut || hasStandIn) continue;
      await area.settle();
      await area.writeWatermark();
      await area.flush();
    }
    await device.flush();
    // Where giving back the space of a deleted snapshot failed, this is the second attempt.
    await store.removeOrphans();
    const modifiedAt = await this.#closingTime();
    await store.control.markClosed({ volumeSize: device.size, modifiedAt });
    if (store.hidesStartBlock) await this.#keepClosingTime(modifiedAt);
  }

  /** What the record says is made true of the device; the record says that nobody keeps a time where that is not allowed. */
  async #keepClosingTime(modifiedAt: bigint): Promise<void> {
    const { store, device } = this.#engine;
    try {
      await device.setModifiedAt?.(modifiedAt);
    } catch (error) {
      // Whoever may write a file, but does not own it, may not set its time.
      if (!(error instanceof DeviceError) || codeOf(error.cause) !== 'EPERM') throw error;
      await store.control.markClosed({ volumeSize: device.size, modifiedAt: 0n });
    }
  }

  /**
   * When the volume was last changed, as the next opening will find it. In-volume the record itself changes the device,
   * so there the device's time is set to what the record says. 0: nobody keeps it.
   */
  async #closingTime(): Promise<bigint> {
    const { store, device, environment } = this.#engine;
    if (!store.hidesStartBlock) return (await device.modifiedAt?.()) ?? 0n;
    if (device.setModifiedAt === undefined) return 0n;
    return BigInt(Math.floor(environment.clock.now() / 1000)) * 1_000_000_000n;
  }
}
