/**
 * Diff areas that are not there when a volume is opened: their device has not arrived.
 *
 * Such a snapshot gets a stand-in, a diff area in memory of a fixed size. Copies go there as they would to the device, and more than
 * is needed: which blocks the real one has is not known yet. The snapshot and all older ones, which read through it, are hidden until
 * it arrives (`volume/late-areas.ts`).
 *
 * What is in memory only dies with the process. So before the first block is overwritten whose copy is there, the control file says so, durably:
 * commit flushes the stand-in, and the flush writes that. An opening that finds it there gives the snapshot up.
 */
import { checkWhole } from '../arguments.js';
import { MemoryDevice } from '../device/memory-device.js';
import { AREA_SIZE_MIN, createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { FormatError, NoSpaceError, OfflineError } from '../errors.js';
import { type DiffAreaItem, SnapshotState } from '../format/control-block.js';
import { type Guid, NIL_GUID } from '../format/guid.js';
import { type CatalogEntry, isDeleting } from '../store/catalog.js';
import type { ControlFile } from '../store/control-file.js';
import { type Piece, Runs } from '../store/runs.js';
import type { AreaFile, AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, blocksIn, roundUp } from '../units.js';
import { SnapshotRecord } from './record.js';

export interface LateOptions {
  /** How long they are waited for, in milliseconds; default one minute. */
  readonly timeLimitMs?: number;
  /** Bytes of memory for copies, some of them for the table; default 64 MiB. */
  readonly memoryLimit?: ByteLength;
  /** Milliseconds between two looks; default one second. */
  readonly intervalMs?: number;
}

/** A snapshot whose diff area is waited for. */
export interface LateArea {
  readonly record: SnapshotRecord;
  readonly item: DiffAreaItem;
  /** In memory. */
  readonly standIn: DiffArea;
}

/** With defaults. @throws InvalidArgumentError */
export function lateLimitsOf(options: LateOptions | undefined): Required<LateOptions> | undefined {
  if (options === undefined) return undefined;
  const { timeLimitMs = 60_000, memoryLimit = 64 * 1024 * 1024, intervalMs = 1000 } = options;
  checkWhole('lateAreas.timeLimitMs', timeLimitMs);
  checkWhole('lateAreas.memoryLimit', memoryLimit);
  checkWhole('lateAreas.intervalMs', intervalMs);
  return { timeLimitMs, memoryLimit, intervalMs };
}

/** The newest that is not being deleted: copies are made for it. */
const targetOf = ({ control }: AttachedStore): CatalogEntry | undefined =>
  control.entries.findLast((entry) => !isDeleting(entry));

/**
 * Not for one that is being deleted and newer than the one that copies are made for: that needs none of blocks that the deleted one has,
 * and which those are is not known.
 */
export function canStandIn(store: AttachedStore, { snapshot }: CatalogEntry): boolean {
  const target = targetOf(store);
  return target !== undefined && snapshot.order <= target.snapshot.order;
}

/** A snapshot with a stand-in for its diff area. */
export async function standIn(
  store: AttachedStore,
  { snapshot, diffArea }: CatalogEntry,
  { memoryLimit }: Required<LateOptions>,
) {
  // Only the newest snapshot takes copies: while its elder is late it cannot be deleted.
  const isTarget = targetOf(store)?.snapshot.storeId === snapshot.storeId;
  const length = Math.max(AREA_SIZE_MIN, isTarget ? roundUp(memoryLimit, BLOCK_SIZE) : 0);
  const file = new MemoryArea(length, store.control, snapshot.storeId);
  const area = await createDiffArea(file, {
    storeId: snapshot.storeId,
    epoch: 1n,
    information: { ...NO_INFORMATION, snapshotId: snapshot.storeId },
    blockCount: blocksIn(snapshot.volumeSize),
    length,
  });
  area.moves.bar();
  file.device.holdsCopies = true;
  const record = new SnapshotRecord(snapshot, { area }, diffArea.state);
  const late: LateArea = { record, item: diffArea, standIn: area };
  return { record, dropped: 0, late, repair: async () => undefined };
}

const NO_INFORMATION = {
  unknownId: NIL_GUID,
  setId: NIL_GUID,
  context: 0,
  provider: 0,
  attributes: 0,
  originatingMachine: '',
  serviceMachine: '',
  label: undefined,
  agentBytes: undefined,
};

/** Memory whose flush says in the control file that there are copies in it. */
class StandInDevice extends MemoryDevice {
  /** Not before the diff area is laid out. */
  holdsCopies = false;
  #isNoted = false;

  constructor(
    length: ByteLength,
    private readonly control: ControlFile,
    private readonly storeId: Guid,
  ) {
    super(length, { name: `memory for snapshot ${storeId}` });
  }

  override async flush(): Promise<void> {
    await super.flush();
    if (!this.holdsCopies || this.#isNoted) return;
    await this.control.setState(this.storeId, { set: SnapshotState.copiesInMemory });
    this.#isNoted = true;
  }
}

/** A file of a fixed size. */
class MemoryArea implements AreaFile {
  readonly device: StandInDevice;
  readonly runs = new Runs([]);

  constructor(length: ByteLength, control: ControlFile, storeId: Guid) {
    this.device = new StandInDevice(length, control, storeId);
  }

  async take(length: ByteLength): Promise<Piece[]> {
    if (this.runs.size > 0)
      throw new NoSpaceError(`${this.device.name} has ${this.runs.size} bytes, no more`);
    return [{ volumeOffset: 0, length }];
  }

  async giveBack(): Promise<void> {
    // It all goes at once, with the object.
  }

  async close(): Promise<void> {
    await this.device.close();
  }

  async remove(): Promise<void> {
    await this.close();
  }
}

/** Were copies for it in the memory of a process that is gone? */
export const isWithoutCopies = ({ state }: { readonly state: number }): boolean =>
  (state & SnapshotState.copiesInMemory) !== 0;

/** @throws FormatError if its copies are lost */
export function checkCopies(item: DiffAreaItem): void {
  if (isWithoutCopies(item))
    throw new FormatError(
      `copies for snapshot ${item.storeId} were made in memory, because its diff area had not arrived, and are lost`,
    );
}

/** Hides what cannot be read until late diff areas arrive; returns a warning. @param records oldest first */
export function holdBack(records: readonly SnapshotRecord[]): string {
  const newest = records.findLastIndex((record) => isStandIn(record));
  const hidden = records.slice(0, newest + 1);
  for (const record of hidden) record.isLate = true;
  return `snapshots that wait for a diff area that has not arrived: ${hidden.map(({ id }) => id).join(', ')}`;
}

const isStandIn = ({ area }: SnapshotRecord): boolean => area?.file instanceof MemoryArea;

/** @throws OfflineError for a snapshot that nothing can be merged into yet */
export function checkArrived(elder: SnapshotRecord): void {
  if (elder.isLate)
    throw new OfflineError(
      `snapshot ${elder.id}, the next older one, waits for a diff area that has not arrived; delete it later: nothing was deleted`,
    );
}

/** Why snapshots are given up when no more copies can be kept for this one. */
export const memoryIsFull = ({ id }: SnapshotRecord): NoSpaceError =>
  new NoSpaceError(`the diff area of snapshot ${id} has not arrived, and the memory for its copies is full`);
