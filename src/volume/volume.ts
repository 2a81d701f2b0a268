/**
 * A protected volume: reads and writes go through it, and its snapshots stay as they were.
 *
 *     await using volume = await Volume.open(await FileDevice.open('disk.img', { writable: true }));
 *     const snapshot = await volume.createSnapshot({ label: 'before the upgrade' });
 *     await volume.write(0, bytes);
 *     await snapshot.read(0, 4096);
 */
import { EventEmitter } from 'node:events';
import { asTarget, checkRange, checkWhole, lengthOf } from '../arguments.js';
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import type { Lent } from '../device/buffer-pool.js';
import { ClosedError, ReadOnlyError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { SpacePolicy } from '../format/start-block.js';
import type { ScrubOptions, ScrubReport } from '../scrub/scrub.js';
import type { CreateSnapshotOptions } from '../snapshot/create.js';
import type { VolumeEvents } from '../snapshot/events.js';
import type { SettledOptions } from '../snapshot/merging.js';
import type { SpacePolicyOptions } from '../snapshot/overflow.js';
import type { RevertOperation, RevertOptions } from '../snapshot/revert-operation.js';
import { createSnapshot } from '../snapshot/set.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { VolumeAccess } from './access.js';
import { openParts, type VolumeOptions, type VolumeParts } from './assemble.js';
import type { ChangedBlocksOptions, ChangedExtent } from './changed-blocks.js';
import { type Change, type ChangeEngine, clear, takeRange, writeRange, zero } from './changing.js';
import { differing } from './compare.js';
import { type CopyRangeOptions, copyRange } from './copy-range.js';
import { alignedExtents, extentsWithData, zerosOf } from './extents.js';
import { growVolume } from './growing.js';
import type { VolumeFigures } from './history.js';
import { setMaximum, setPolicy } from './limits.js';
import type { Recovery } from './open.js';
import type { InitializeVolumeOptions } from './options.js';
import { initializeStore } from './taking-over.js';
import { WindowsSnapshot } from './windows-snapshot.js';
import { changesOf, storeWriterOf } from './writers.js';

export type { VolumeOptions } from './assemble.js';
export type { ChangedBlocksOptions } from './changed-blocks.js';
export type { InitializeVolumeOptions } from './options.js';

export class Volume extends EventEmitter<VolumeEvents> implements VolumeAccess {
  #parts: VolumeParts | undefined;
  static #count = 0;
  /** @internal Orders the volumes of this process, so that who needs several takes them in the same order. */
  readonly serial = Volume.#count++;

  /**
   * Makes an empty store for the volume on `device`, which stays open. What an interrupted call has left is made anew.
   * @throws AlreadyInitializedError (there is one in the place of the new one, or, of a file, where `findStore` looks), UnsupportedError, InvalidArgumentError, ReadOnlyError, DeviceError
   */
  static async initialize(device: BlockDevice, options: InitializeVolumeOptions): Promise<void> {
    if (!device.writable) throw new ReadOnlyError(`${device.name} is open for reading only`);
    checkWhole('maximum size', options.maximumSize ?? 0);
    await initializeStore(device, options);
  }

  /**
   * Opens the volume on `device`, which belongs to it from then on: closing the volume, or failing to open it, closes it.
   * To open a volume with shadow copies made by Windows for writing takes the option `shadowCopies`.
   * @throws NotInitializedError, VolumeChangedError, FormatError (damaged), OfflineError (late diff areas, and a snapshot is held),
   *   UnsupportedError, ReadOnlyError, DeviceError
   */
  static async open(device: BlockDevice, options: VolumeOptions = {}): Promise<Volume> {
    const volume = new Volume();
    try {
      volume.#parts = await openParts(device, options, (name, ...event) => volume.#tell(name, event));
      return volume;
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  /** What a listener throws is the listener's affair; it does not reach into the engine. */
  #tell<Name extends keyof VolumeEvents>(name: Name, event: VolumeEvents[Name]): void {
    try {
      // EventEmitter cannot relate a generic name to its arguments.
      (this as EventEmitter).emit(name, ...event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  get size(): ByteLength {
    return this.#opened.history.volume.size;
  }

  /** GUID of the volume, from its store; `undefined` where Windows made that. */
  get id(): Guid | undefined {
    return this.#opened.writer?.engine.store.control.start.volumeId;
  }

  get name(): string {
    return this.#opened.device.name;
  }

  get writable(): boolean {
    const { writer, windows } = this.#opened;
    return (writer?.engine ?? windows) !== undefined;
  }

  /** What opening found out. */
  get recovery(): Recovery {
    return this.#opened.recovery;
  }

  /** Oldest first. */
  get snapshots(): readonly Snapshot[] {
    return this.#opened.history.snapshots;
  }

  get figures(): VolumeFigures {
    return this.#opened.history.figures;
  }

  /** Reads what the volume holds now. @param target how many bytes, or where to put them */
  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    const { life, history, writer } = this.#opened;
    // One async function, and no closure: for small reads each of them would be felt.
    life.enter();
    try {
      const { volume } = history;
      checkRange(offset, lengthOf(target), volume.size);
      const buffer = asTarget(target);
      const writes = writer?.engine.writes;
      if (writes !== undefined) await writes.read(offset, buffer);
      else if (volume.readNow?.(offset, buffer) !== true) await volume.read(offset, buffer);
      return buffer;
    } finally {
      life.leave();
    }
  }

  /** What is known to be zero now, without reading: see `AllocationExtent`. */
  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const { history, life, writer } = this.#opened;
    life.check();
    checkRange(offset, length, history.volume.size);
    for await (const extent of allocationOf(writer?.engine.writes ?? history.volume, offset, length)) {
      life.check();
      yield extent;
    }
  }

  /**
   * Writes any byte range. It is there for readers when this resolves, and durable after the next `flush`; in the mode
   * `ordered` it is in the volume then, in the mode `writeback` it may be in memory only.
   * Blocks that the newest snapshot needs are copied, durably, before the volume is written.
   * @throws NoSpaceError (no room for copies: nothing was done, but for parts of 32 MiB of a longer write),
   *   InvalidArgumentError, ReadOnlyError, ClosedError, DeviceError
   */
  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    const engine = this.#writing;
    const { life } = engine;
    life.enter();
    try {
      await writeRange(engine, offset, source);
    } finally {
      life.leave();
    }
  }

  /**
   * @internal As `write`, for whoever gives the memory away that `source` lies in: in the mode `writeback` it is kept, not copied.
   * @returns `undefined` if it is done already
   */
  take(offset: ByteOffset, source: Uint8Array, lent: Lent): Promise<void> | undefined {
    return takeRange(this.#writing, offset, source, lent);
  }

  /** Makes the range read as zeros. For snapshots it is a write. */
  async writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#clear(offset, length, zero);
  }

  /** Whether `discard` can give space back; else it writes zeros. */
  get discards(): boolean {
    return this.#opened.history.volume.discard !== undefined;
  }

  /** Says that the range is not needed any more; it reads as zeros afterwards. For snapshots it is a write. */
  async discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#clear(
      offset,
      length,
      (device, at, part) => device.discard?.(at, part) ?? zero(device, at, part),
    );
  }

  /**
   * Copies bytes to another place in the volume; the ranges may overlap. For snapshots it is a write of the target, and whole blocks move:
   * see `copy-range.ts`. @throws InvalidArgumentError, ReadOnlyError, ClosedError, DeviceError, what `signal` was aborted with
   */
  async copyRange(from: ByteOffset, to: ByteOffset, length: ByteLength, options: CopyRangeOptions = {}) {
    await this.#runWriting(({ engine }) => copyRange(engine, { from, to, length }, options));
  }

  async #clear(offset: ByteOffset, length: ByteLength, action: Change): Promise<void> {
    const engine = this.#writing;
    await engine.life.run(async () => {
      checkRange(offset, length, engine.device.size);
      await engine.protectedBlocks?.admitClearing(offset, length);
      await clear(engine, { offset, length }, action);
    });
  }

  /** Resolves when every write acknowledged before is on stable storage. */
  async flush(): Promise<void> {
    // Of a volume that is open for reading everything is durable already.
    await this.#run(async ({ writer, windows }) => {
      const engine = writer?.engine ?? windows;
      await (engine?.writes ?? engine?.live)?.flush();
    });
  }

  /**
   * Takes a snapshot: the volume as it is at one moment between this call and its return.
   * @throws HoldTimeoutError, LimitError, NoSpaceError, InvalidArgumentError, ReadOnlyError, DeviceError; then there is
   *   no new snapshot
   */
  async createSnapshot(options: CreateSnapshotOptions = {}): Promise<Snapshot> {
    return this.whileCreating(async ({ engine, history }) =>
      history.handleOf(await createSnapshot(engine, options)),
    );
  }

  /** @internal Runs `action` while no other snapshot of the volume is taken. @throws ClosedError, ReadOnlyError */
  whileCreating<T>(action: (writer: NonNullable<VolumeParts['writer']>) => Promise<T>): Promise<T> {
    return this.#runWriting((writer) => writer.engine.reverts.taking.runExclusive(() => action(writer)));
  }

  /** Deletes the `count` oldest snapshots; durable when it resolves. @throws HeldError (of one of them), OfflineError (diff areas are late); none was deleted */
  async deleteOldest(count = 1): Promise<void> {
    checkWhole('count', count);
    const { windows } = this.#opened;
    if (windows !== undefined) return this.#run(() => windows.writer.removeOldest(count, 'requested'));
    await this.#runWriting(async ({ engine: { chain, copyOnWrite } }) => {
      await chain.removeOldest(count, copyOnWrite, 'requested');
    });
  }

  /** Resolves when every deleted snapshot is merged and its space free; see `Merging.done` for what it throws. */
  async settled(options: SettledOptions = {}): Promise<void> {
    this.#opened.life.check();
    // Not as a call under way: a close does not wait for it, but ends it.
    await this.#opened.writer?.engine.merging.done(undefined, options);
  }

  /**
   * What changed from `since` to `until`, in ascending extents, exact at 16 KiB.
   * @throws SnapshotDeletedError, InvalidArgumentError
   */
  changedBlocks(options: ChangedBlocksOptions): AsyncGenerator<ChangedExtent> {
    return alignedExtents(this.#changed(options), options.until ?? this, options.alignment);
  }

  async *#changed(options: ChangedBlocksOptions): AsyncGenerator<ChangedExtent> {
    const { since, until, compare = false, copiedOnly, offset, length, signal } = options;
    const { history, life } = this.#opened;
    life.check();
    const after = until ?? this;
    const before = since ?? zerosOf(after.size);
    const changed =
      since === undefined
        ? extentsWithData(after, offset, length)
        : history.changed({ since, until, copiedOnly, offset, length, signal });
    for await (const extent of changed) {
      life.check();
      signal?.throwIfAborted();
      if (compare) yield* differing(before, after, extent);
      else yield extent;
    }
  }

  /** What happens to a write when there is no room for its copies; kept in the store. @throws InvalidArgumentError, DeviceError */
  async setSpacePolicy(policy: SpacePolicy, options: SpacePolicyOptions = {}): Promise<void> {
    await this.#runWriting(({ engine }) => setPolicy(engine, policy, options));
  }

  /**
   * Makes the volume longer, with its device; snapshots that were taken before keep their size. Durable when it resolves.
   * The new part reads as zeros. Users of the NBD exports see it when they connect again.
   * @throws UnsupportedError (the store lies behind the volume, or the device has a fixed size), InvalidArgumentError
   */
  async grow(size: ByteLength): Promise<void> {
    await this.whileCreating(({ engine }) => growVolume(engine, size));
  }

  /** Changes the limit on diff-area space, in bytes; 0: none. If more is in use, the oldest snapshots go, as the policy lets them. */
  async setMaximumSize(maximumSize: ByteLength): Promise<void> {
    await this.#runWriting(({ engine }) => setMaximum(engine, maximumSize));
  }

  /**
   * Reads everything that the store holds, and tests every checksum, in the background; see `Scrubs.run` for what it throws.
   * @throws ReadOnlyError (`checkVolume` is for a volume that is only read)
   */
  async scrub(options: ScrubOptions = {}): Promise<ScrubReport> {
    return storeWriterOf(this.#opened).engine.scrubs.run(options);
  }

  /** Puts the volume back to a snapshot, usable at once. @throws UnsupportedError (a shadow copy of Windows), ReadOnlyError, ClosedError; else see `RevertOperation` */
  revert(snapshot: Snapshot, options: RevertOptions = {}): RevertOperation {
    if (snapshot instanceof WindowsSnapshot) snapshot.refuseRevert();
    return storeWriterOf(this.#opened).history.revert(snapshot, options);
  }

  /** The revert under way, if there is one and the volume is open for writing; `figures.revert` tells how far it is. */
  get reverting(): RevertOperation | undefined {
    return this.#opened.writer?.engine.reverts.current;
  }

  /**
   * Waits for everything under way, makes it durable, records that the volume was closed properly, and closes its device.
   * May be called repeatedly.
   */
  async close(): Promise<void> {
    const { life, device, history, writer } = this.#opened;
    // Who waits for room would be waited for.
    writer?.engine.space.close();
    await life.close(async () => {
      try {
        await history.close();
      } finally {
        await device.close();
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #opened(): VolumeParts {
    if (this.#parts === undefined) throw new ClosedError('the volume was never opened; use Volume.open()');
    return this.#parts;
  }

  /** @throws as `changesOf` */
  get #writing(): ChangeEngine {
    return changesOf(this.#opened);
  }

  /** @internal What it is made of, for those who look for damage in it. @throws ClosedError */
  get parts(): VolumeParts {
    return this.#opened;
  }

  /** @throws ClosedError */
  #run<T>(action: (parts: VolumeParts) => Promise<T>): Promise<T> {
    const parts = this.#opened;
    return parts.life.run(() => action(parts));
  }

  /** @throws as `storeWriterOf` */
  #runWriting<T>(action: (writer: NonNullable<VolumeParts['writer']>) => Promise<T>): Promise<T> {
    return this.#run(async (parts) => action(storeWriterOf(parts)));
  }
}
