/**
 * Diff areas that are not there when a volume is opened: their device has not arrived.
 *
 * Such a snapshot gets a stand-in, a diff area in memory of a fixed size. Copies go there as they would to the device, and more than
 * is needed: which blocks the real one has is not known yet. The snapshot and all older ones, which read through it, are hidden until
 * it arrives (`volume/late-areas.ts`).
 *
 * What is in memory only dies with the process. So before the first block is overwritten whose copy is there, the control file says so, durably:
 * commit flushes the stand-in, and the flush writes that. An opening that finds it there gives the snapshot up. A hold promises that nothing
 * gives a snapshot up, so where copies would be in memory that one which is held needs, the volume does not open.
 */
import { checkWhole } from '../arguments.js';
import { MemoryDevice } from '../device/memory-device.js';
import { AREA_SIZE_MIN, createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { FormatError, InvalidArgumentError, NoSpaceError, OfflineError } from '../errors.js';
import { informationOf } from '../format/application-information.js';
import { type DiffAreaItem, SnapshotState } from '../format/control-block.js';
import { type Guid, NIL_GUID } from '../format/guid.js';
import { type CatalogEntry, isDeleting } from '../store/catalog.js';
import type { ControlFile } from '../store/control-file.js';
import { type Piece, Runs } from '../store/runs.js';
import type { SpaceBudget } from '../store/space-budget.js';
import type { AreaFile, AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, blocksIn, roundUp } from '../units.js';
import { SnapshotRecord } from './record.js';

export interface LateOptions {
  /** How long they are waited for, in milliseconds, at most a day; default one minute. */
  readonly timeLimitMs?: number;
  /** Bytes of memory for copies, some of them for the table; default 64 MiB. */
  readonly memoryLimit?: ByteLength;
  /** Milliseconds between two looks, at most a day; default one second. */
  readonly intervalMs?: number;
}

const TIME_LIMIT_MS = 60_000;
const MEMORY_LIMIT: ByteLength = 64 * 1024 * 1024;
const INTERVAL_MS = 1000;
const DAY_MS = 86_400_000;

/** A snapshot whose diff area is waited for. */
export interface LateArea {
  readonly record: SnapshotRecord;
  /** In memory. */
  readonly standIn: DiffArea;
  /** What that is in. */
  readonly memory: StandInDevice;
  readonly space: LateSpace;
}

/** What the limit of the store counts for a diff area that is not there: what the control file says that it has. */
export class LateSpace {
  readonly #budget: SpaceBudget;
  #bytes: ByteLength;
  #isInFile = false;
  #isFree = false;

  constructor(budget: SpaceBudget, bytes: ByteLength) {
    this.#budget = budget;
    this.#bytes = bytes;
    budget.count(bytes);
  }

  get bytes(): ByteLength {
    return this.#bytes;
  }

  /** Is its file open for a look? */
  get isInFile(): boolean {
    return this.#isInFile;
  }

  /** For `AttachedStore.openArea`: now it is the file that gives them back. */
  handOver(): ByteLength {
    this.#isInFile = true;
    return this.#bytes;
  }

  /** The file, which has so many bytes, is not open any more, or never was. */
  takeBack(bytes: ByteLength): void {
    this.#isInFile = false;
    if (this.#isFree) this.#budget.giveBack(bytes - this.#bytes);
    this.#bytes = bytes;
  }

  /** The snapshot is gone. */
  free(): void {
    if (this.#isFree) return;
    this.#isFree = true;
    this.#budget.giveBack(this.#bytes);
  }
}

/** With defaults. @throws InvalidArgumentError */
export function lateLimitsOf(options: LateOptions | undefined): Required<LateOptions> | undefined {
  if (options === undefined) return undefined;
  const { timeLimitMs = TIME_LIMIT_MS, memoryLimit = MEMORY_LIMIT, intervalMs = INTERVAL_MS } = options;
  checkWhole('lateAreas.memoryLimit', memoryLimit);
  for (const [name, value] of Object.entries({ timeLimitMs, intervalMs }))
    if (!(value > 0 && value <= DAY_MS))
      throw new InvalidArgumentError(`lateAreas.${name} must be above 0 and at most ${DAY_MS}, got ${value}`);
  return { timeLimitMs, memoryLimit, intervalMs };
}

/** The newest that is not being deleted: copies are made for it. */
const targetOf = ({ control }: AttachedStore): CatalogEntry | undefined =>
  control.entries.findLast((entry) => !isDeleting(entry));

/**
 * Not for one that is being deleted and newer than the one that copies are made for: that needs none of the blocks that the deleted one
 * has, and which those are is not known. Nor for one that a revert needs, which reads it at once.
 * @param revertTarget what the volume is being put back to
 */
export function canStandIn(
  store: AttachedStore,
  { snapshot }: CatalogEntry,
  revertTarget: CatalogEntry | undefined,
): boolean {
  const target = targetOf(store);
  const isOlder = revertTarget === undefined || snapshot.order < revertTarget.snapshot.order;
  return isOlder && target !== undefined && snapshot.order <= target.snapshot.order;
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
  const space = new LateSpace(store.budget, diffArea.allocatedSize);
  const file = new MemoryArea(length, store, snapshot.storeId, space);
  const area = await createDiffArea(file, {
    storeId: snapshot.storeId,
    epoch: 1n,
    information: informationOf(snapshot.storeId, NIL_GUID),
    blockCount: blocksIn(snapshot.volumeSize),
    length,
  });
  area.moves.bar();
  file.device.holdsCopies = true;
  const record = new SnapshotRecord(snapshot, { area }, diffArea.state);
  record.isLate = true;
  record.hasStandIn = true;
  const late: LateArea = { record, standIn: area, memory: file.device, space };
  return { record, dropped: 0, late, repair: async () => undefined };
}

/** Memory whose flush says in the control file that there are copies in it. */
export class StandInDevice extends MemoryDevice {
  /** Not before the diff area is laid out. */
  holdsCopies = false;
  /** Does the control file say so, durably? */
  #isNoted = false;
  /** May it say so? An attempt that failed may have reached the device. */
  #mayBeNoted = false;

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
    this.#mayBeNoted = true;
    await this.control.setState(this.storeId, { set: SnapshotState.copiesInMemory });
    this.#isNoted = true;
  }

  /** All copies are elsewhere, durably: takes that back. If it fails, the next flush says it again. @throws DeviceError */
  async forgetCopies(): Promise<void> {
    if (!this.#mayBeNoted) return;
    this.#isNoted = false;
    await this.control.setState(this.storeId, { clear: SnapshotState.copiesInMemory });
    this.#mayBeNoted = false;
  }
}

/** A file of a fixed size. */
class MemoryArea implements AreaFile {
  readonly device: StandInDevice;
  readonly runs = new Runs([]);

  constructor(
    length: ByteLength,
    private readonly store: AttachedStore,
    private readonly storeId: Guid,
    private readonly space: LateSpace,
  ) {
    this.device = new StandInDevice(length, store.control, storeId);
  }

  async take(length: ByteLength): Promise<Piece[]> {
    if (this.runs.size > 0)
      throw new NoSpaceError(`${this.device.name} has ${this.runs.size} bytes, no more`);
    return [{ volumeOffset: 0, length }];
  }

  async establish(): Promise<void> {
    // It goes with the process.
  }

  async giveBack(): Promise<void> {
    // It all goes at once, with the object.
  }

  async close(): Promise<void> {
    await this.device.close();
  }

  /** The snapshot is gone, and its file, if that is there. Who has it open removes it; else the next opening that finds it. */
  async remove(): Promise<void> {
    this.space.free();
    await this.close();
    if (!this.space.isInFile) await this.store.removeArea(this.storeId);
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
  const newest = records.findLastIndex(({ hasStandIn }) => hasStandIn);
  const hidden = records.slice(0, newest + 1);
  for (const record of hidden) record.isLate = true;
  return `snapshots that wait for a diff area that has not arrived: ${hidden.map(({ id }) => id).join(', ')}`;
}

/**
 * May copies be made in memory? Not if one of the snapshots that need them is held: a crash would take it.
 * @param records oldest first @param now in milliseconds since 1970 @returns why not; `undefined`: they may
 */
export function whyHeldInTheWay(records: readonly SnapshotRecord[], now: number): OfflineError | undefined {
  const target = records.findLast(({ deleted }) => deleted === undefined);
  if (target?.hasStandIn !== true) return undefined;
  const held = records.find((record) => record.deleted === undefined && record.isHeldAt(now));
  if (held === undefined) return undefined;
  return new OfflineError(
    `snapshot ${held.id} is held, and the diff area of ${target.id}, which it needs, is not there. What is written now would have to be copied into memory, and lost with the process, so the volume is not opened for writing. Bring the device of the diff area back; or open read-only; or give the snapshots up with: volsnap check --repair`,
  );
}

/** Must a deletion of a younger one wait, because nothing can be merged into this one yet? @throws OfflineError */
export function checkArrived(elder: SnapshotRecord): void {
  if (elder.isLate)
    throw new OfflineError(
      `an older snapshot, ${elder.id}, waits for a diff area that has not arrived; delete later: nothing was deleted`,
    );
}

/** Why no more copies can be made for this one, in words. */
export const memoryIsFull = ({ id }: SnapshotRecord): NoSpaceError =>
  new NoSpaceError(`the diff area of snapshot ${id} has not arrived, and the memory for its copies is full`);
