/**
 * Shadow copies of Windows in a store of volsnap that has taken them over (`taking-over.ts`).
 *
 * Their own stores are never written again. What none of them has is read from the base, the oldest snapshot of volsnap, as if it were
 * a shadow copy newer than all of theirs; so a write of the volume has to keep nothing for them but what the base needs anyway.
 */
import type { BlockDevice } from '../device/block-device.js';
import { SliceDevice } from '../device/slice-device.js';
import { firstFrom, type PagedBlocks } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE } from '../diff-area/presence.js';
import { FormatError, IntegrityError, InvalidArgumentError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { twice } from '../snapshot/doubt.js';
import type { Elders } from '../snapshot/elders.js';
import type { Emit } from '../snapshot/events.js';
import { readSnapshot } from '../snapshot/reader.js';
import type { DeletionReason, SnapshotRecord } from '../snapshot/record.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { AttachedStore } from '../store/store.js';
import type { BlockNumber, ByteLength, ByteOffset } from '../units.js';
import type { ReadSource } from '../windows/device-reads.js';
import { ForeignRemovals } from '../windows/foreign-removals.js';
import type { ForeignSnapshot, TableFault } from '../windows/foreign-snapshot.js';
import { openTakenOver } from '../windows/foreign-store.js';
import { Notes } from '../windows/notes.js';
import { mapStores } from '../windows/store-map.js';
import type { Engine } from './engine.js';
import type { Recovery } from './open.js';
import { indexIn, writtenBlocks } from './windows-history.js';
import { announcing, idOf, WindowsSnapshot } from './windows-snapshot.js';

export interface TakenOverOptions {
  readonly writable: boolean;
  readonly onDamaged: 'refuse' | 'drop';
  readonly emit: Emit;
}

export class TakenOver implements Elders {
  /** What was odd about them but does no harm. */
  readonly notes: readonly string[];
  /** Those that went when the volume was opened, because they could not be read. */
  readonly dropped: Recovery['droppedSnapshots'];
  readonly #all: readonly WindowsSnapshot[];
  readonly #base: Base;
  /** `undefined`: the volume is open for reading. */
  readonly #removals: ForeignRemovals<DeletionReason> | undefined;

  private constructor(
    found: Pick<TakenOver, 'notes' | 'dropped'>,
    snapshots: readonly ForeignSnapshot[],
    base: Base,
    removals: ForeignRemovals<DeletionReason> | undefined,
  ) {
    this.notes = found.notes;
    this.dropped = found.dropped;
    this.#base = base;
    this.#removals = removals;
    const writer = removals && {
      remove: (snapshot: ForeignSnapshot) => removals.remove(snapshot, 'requested'),
    };
    this.#all = snapshots.map((snapshot) => new WindowsSnapshot(snapshot, writer));
  }

  /**
   * Reads what the store on `device` says of them; `undefined`: there are none. Until `readThrough` was called they cannot be read.
   * @param records snapshots of volsnap, oldest first
   * @throws FormatError (damaged, and not to be dropped), DeviceError
   */
  static async open(
    device: BlockDevice,
    store: AttachedStore,
    records: readonly SnapshotRecord[],
    options: TakenOverOptions = { writable: false, onDamaged: 'refuse', emit: () => undefined },
  ): Promise<TakenOver | undefined> {
    const { control } = store;
    if (control.shadowCopies.length === 0) return undefined;
    const windows = new SliceDevice(device, 0, store.volume.size, { name: device.name });
    const notes = new Notes();
    const base = new Base(records[0]);
    const read = () =>
      openTakenOver(
        { device: windows, catalog: control.shadowCopies, below: base, fault: base.fault },
        notes,
      );
    let snapshots = await read();
    if (!options.writable)
      return new TakenOver({ notes: notes.list, dropped: [] }, snapshots, base, undefined);
    const damaged = snapshots.slice(0, snapshots.findLastIndex(({ reason }) => reason !== undefined) + 1);
    if (damaged.length > 0 && options.onDamaged === 'refuse')
      throw new FormatError(
        `${damaged.at(-1)?.reason}. Open the volume read-only to save what can be read, or give the shadow copies that cannot up with: volsnap check --repair`,
      );
    for (const { storeId } of damaged) await control.remove(storeId);
    const dropped = damaged.map((snapshot) => ({ id: idOf(snapshot), reason: 'damaged' as const }));
    if (damaged.length > 0) snapshots = await read();
    const handles = new Map<ForeignSnapshot, WindowsSnapshot>();
    const diffAreas = control.shadowCopies.map(
      ({ snapshot, diffArea }) => [snapshot.storeId, diffArea] as const,
    );
    const removals = new ForeignRemovals<DeletionReason>({
      map: await mapStores(windows, snapshots, {
        controlBlocks: [],
        pairs: new Map(diffAreas.map(([storeId, diffAreaItem]) => [storeId, { diffAreaItem }])),
      }),
      free: ({ snapshot }) => twice(() => control.remove(snapshot.storeId)),
      listener: announcing(options.emit, handles),
    });
    const takenOver = new TakenOver({ notes: notes.list, dropped }, snapshots, base, removals);
    for (const snapshot of takenOver.#all) handles.set(snapshot.foreign, snapshot);
    return takenOver;
  }

  /** They are read through the oldest snapshot of this engine from now on. */
  readThrough(engine: Engine): void {
    this.#base.engine = engine;
  }

  /** Oldest first. */
  get snapshots(): readonly WindowsSnapshot[] {
    return this.#all.filter(({ deleted }) => deleted === undefined);
  }

  /** The one that `snapshot` is, if it is one of these. */
  find(snapshot: Snapshot): WindowsSnapshot | undefined {
    return this.#all.find((each) => each === snapshot);
  }

  /**
   * What changed from `since` on, up to `until` (default: now), or up to the base if that is newer. Nothing if `since` is no shadow copy.
   * @throws SnapshotDeletedError, InvalidArgumentError, FormatError
   */
  changed(since: Snapshot, until: Snapshot | undefined): readonly PagedBlocks[] {
    if (this.find(since) === undefined || since === until) return [];
    const { snapshots } = this;
    const first = indexIn(snapshots, since);
    const last = until && this.find(until);
    const end = last === undefined ? snapshots.length : indexIn(snapshots, last);
    if (end < first)
      throw new InvalidArgumentError(
        `shadow copy ${since.id} is newer than ${last?.id}; give the older one first`,
      );
    const passed = snapshots.slice(first, end).map(({ foreign }) => foreign);
    return [inPages(writtenBlocks(passed, last?.foreign))];
  }

  get count(): number {
    return this.snapshots.length;
  }

  async removeOldest(count: number, reason: DeletionReason, cause?: unknown): Promise<void> {
    await this.#removals?.removeOldest(count, reason, cause);
  }

  areWithin(offset: ByteOffset, length: ByteLength): boolean {
    return length > 0 && this.#removals?.guard.meetsStore(offset, length) !== undefined;
  }
}

/** @param blocks ascending */
function inPages(blocks: readonly BlockNumber[]): PagedBlocks {
  const pages = new Map<number, BlockNumber[]>();
  for (const block of blocks) {
    const page = Math.floor(block / BLOCKS_PER_PAGE);
    const list = pages.get(page);
    if (list === undefined) pages.set(page, [block]);
    else list.push(block);
  }
  const numbers = [...pages.keys()];
  return {
    hasPage: (page) => pages.has(page),
    pageFrom: (page) => firstFrom(numbers, page),
    addPresence: (page, bitmap) => {
      for (const block of pages.get(page) ?? []) {
        const bit = block % BLOCKS_PER_PAGE;
        bitmap[bit >>> 5] = (bitmap[bit >>> 5] ?? 0) | (1 << (bit & 31));
      }
    },
  };
}

/** The oldest snapshot of volsnap, without what was written to it itself. */
class Base implements ReadSource {
  readonly fault: TableFault | undefined;
  readonly #record: SnapshotRecord | undefined;
  engine: Engine | undefined;

  constructor(oldest: SnapshotRecord | undefined) {
    const isBase = oldest !== undefined && (oldest.state & SnapshotState.base) !== 0;
    this.#record = isBase ? oldest : undefined;
    const error = isBase ? oldest.damage : new FormatError('it is not in the control blocks');
    this.fault = error && { storeId: isBase ? oldest.id : 'of volsnap', error };
  }

  get size(): ByteLength {
    return this.#record?.item.volumeSize ?? 0;
  }

  /** @throws SnapshotDeletedError, ClosedError, IntegrityError, DeviceError */
  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const [record, engine] = [this.#record, this.engine];
    if (record === undefined || engine === undefined)
      throw new SnapshotDeletedError('there is no snapshot that the shadow copies could be read through');
    const { chain, device, life, threadReads, emit } = engine;
    try {
      await life.run(() =>
        record.whileReading(() =>
          readSnapshot(() => chain.areasFrom(record), device, offset, target, threadReads),
        ),
      );
    } catch (error) {
      if (error instanceof IntegrityError) emit('integrityFailure', { id: record.id, error });
      throw error;
    }
  }
}
