/**
 * A protected volume: reads and writes go through it, and its snapshots stay as they were.
 *
 *     await using volume = await Volume.open(await FileDevice.open('disk.img', { writable: true }));
 *     const snapshot = await volume.createSnapshot({ label: 'before the upgrade' });
 *     await volume.write(0, bytes);
 *     await snapshot.read(0, 4096);
 */
import { EventEmitter } from 'node:events';
import { Mutex } from 'async-mutex';
import type { BlockDevice } from '../device/block-device.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { ClosedError, InvalidArgumentError, ReadOnlyError, UnsupportedError } from '../errors.js';
import { type CreateSnapshotOptions, createSnapshot } from '../snapshot/create.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { ByteSource, Snapshot } from '../snapshot/snapshot.js';
import { DEFAULT_GROWTH, type Growth } from '../snapshot/space.js';
import { StoredSnapshot } from '../snapshot/stored-snapshot.js';
import type { AttachedStore, Store } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import { type ChangedExtent, changedExtents } from './changed-blocks.js';
import { Engine } from './engine.js';
import type { Emit, VolumeEvents } from './events.js';
import { closeAreas, FOREIGN, findStore, loadStore, type Recovery } from './open.js';
import { asTarget, checkRange, lengthOf } from './range.js';

export interface VolumeOptions {
  /** Where the snapshots are; by default what `findStore` finds: `NAME.volsnap` beside the device, or inside it. */
  readonly store?: Store;
  /** Default: as the device is. Nothing at all is written to a volume that is open for reading only. */
  readonly readOnly?: boolean;
  /** What to do if the volume was written while volsnap was not there; default `refuse`. */
  readonly onVolumeChanged?: 'refuse' | 'keep' | 'invalidate';
  /** What to do about snapshots whose metadata is damaged; default `refuse`. */
  readonly onDamaged?: 'refuse' | 'drop';
  /** Bytes of copies in flight; default 64 MiB. */
  readonly memoryLimit?: ByteLength;
  readonly growth?: Growth;
  readonly environment?: Environment;
}

const DEFAULT_MEMORY_LIMIT = 64 * 1024 * 1024;

export interface InitializeVolumeOptions {
  readonly store: Store;
  /** Bytes that diff areas may take in all; default 0: no limit. */
  readonly maximumSize?: ByteLength;
  readonly environment?: Environment;
}

export interface ChangedBlocksOptions {
  readonly since: Snapshot;
  /** Default: now. */
  readonly until?: Snapshot;
  /** Compare the bytes and leave out blocks that are equal again. */
  readonly compare?: boolean;
  readonly signal?: AbortSignal;
}

/** What the volume and its store hold at this moment. */
export interface VolumeFigures {
  readonly layout: 'directory' | 'in-volume';
  readonly storeName: string;
  readonly usedBytes: ByteLength;
  readonly allocatedBytes: ByteLength;
  /** 0: no limit. */
  readonly maximumBytes: ByteLength;
  readonly tableMemoryBytes: ByteLength;
  readonly copies: Readonly<CopyOnWriteFigures>;
  readonly queues: {
    readonly copy: number;
    readonly commit: number;
    readonly background: number;
    readonly held: number;
  };
  /** How long writes were held for the last snapshot, in milliseconds. */
  readonly lastHoldMs: number;
}
type CopyOnWriteFigures = Engine['copyOnWrite']['figures'];

export class Volume extends EventEmitter<VolumeEvents> implements ByteSource {
  readonly #device: BlockDevice;
  readonly #engine: Engine;
  readonly #writable: boolean;
  readonly #handles = new WeakMap<SnapshotRecord, StoredSnapshot>();
  /** One snapshot is taken at a time. */
  readonly #creating = new Mutex();
  #closing: Promise<void> | undefined;
  /** What opening found out. */
  readonly recovery: Recovery;

  private constructor(
    device: BlockDevice,
    store: AttachedStore,
    records: readonly SnapshotRecord[],
    recovery: Recovery,
    options: VolumeOptions,
    writable: boolean,
  ) {
    super();
    this.#device = device;
    this.#writable = writable;
    this.recovery = recovery;
    const emit: Emit = (name, ...event) => {
      // EventEmitter cannot relate a generic name to its arguments.
      (this as EventEmitter).emit(name, ...event);
    };
    this.#engine = new Engine(store.volume, store, records, {
      environment: options.environment ?? systemEnvironment,
      memoryLimit: options.memoryLimit ?? DEFAULT_MEMORY_LIMIT,
      growth: options.growth ?? DEFAULT_GROWTH,
      emit,
    });
  }

  /**
   * Makes an empty store for the volume on `device`, which stays open.
   * @throws AlreadyInitializedError, UnsupportedError, InvalidArgumentError, DeviceError
   */
  static async initialize(device: BlockDevice, options: InitializeVolumeOptions): Promise<void> {
    if (!device.writable) throw new ReadOnlyError(`${device.name} is open for reading only`);
    const { store, maximumSize = 0, environment = systemEnvironment } = options;
    if (!Number.isSafeInteger(maximumSize) || maximumSize < 0)
      throw new InvalidArgumentError(`maximum size must be a whole number from 0, got ${maximumSize}`);
    await store.initialize(device, { environment, maximumSize });
  }

  /**
   * Opens the volume on `device`, which belongs to it from then on: closing the volume, or failing to open it, closes the device.
   * @throws NotInitializedError, VolumeChangedError, FormatError (damaged), UnsupportedError, DeviceError
   */
  static async open(device: BlockDevice, options: VolumeOptions = {}): Promise<Volume> {
    const writable = device.writable && options.readOnly !== true;
    if (options.readOnly === false && !device.writable)
      throw new ReadOnlyError(`${device.name} is open for reading only`);
    const environment = options.environment ?? systemEnvironment;
    let store: AttachedStore | undefined;
    try {
      const place = options.store ?? (await findStore(device));
      if (place === FOREIGN) throw new UnsupportedError('written by Windows');
      store = await place.attach(device, { environment, writable });
      const loaded = await loadStore(store, {
        environment,
        writable,
        onVolumeChanged: options.onVolumeChanged ?? 'refuse',
        onDamaged: options.onDamaged ?? 'refuse',
      });
      const volume = new Volume(device, store, loaded.records, loaded.recovery, options, writable);
      if (loaded.drop !== undefined) {
        const { chain, copyOnWrite } = volume.#engine;
        await chain.removeThrough(loaded.drop.through, copyOnWrite, loaded.drop.reason);
      }
      return volume;
    } catch (error) {
      await store?.close();
      await device.close();
      throw error;
    }
  }

  get size(): ByteLength {
    return this.#engine.device.size;
  }

  get name(): string {
    return this.#device.name;
  }

  get writable(): boolean {
    return this.#writable;
  }

  /** Oldest first. */
  get snapshots(): readonly Snapshot[] {
    return this.#engine.chain.records.map((record) => this.#handleOf(record));
  }

  #handleOf(record: SnapshotRecord): StoredSnapshot {
    let handle = this.#handles.get(record);
    if (handle === undefined) {
      handle = new StoredSnapshot(this.#engine, record, this.#writable);
      this.#handles.set(record, handle);
    }
    return handle;
  }

  /** Reads what the volume holds now. @param target how many bytes, or where to put them */
  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    this.#checkOpen();
    checkRange(offset, lengthOf(target), this.size);
    const buffer = asTarget(target);
    await this.#engine.device.read(offset, buffer);
    return buffer;
  }

  /**
   * Writes any byte range; it is there for readers when this resolves, and durable after the next `flush`.
   * Blocks that the newest snapshot needs are copied, durably, before.
   * @throws InvalidArgumentError, ReadOnlyError, ClosedError, DeviceError
   */
  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    await this.#change(offset, source.byteLength, (device) => device.write(offset, source));
  }

  /** Makes the range read as zeros. For snapshots it is a write. */
  async writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#change(offset, length, (device) => zero(device, offset, length));
  }

  /** Says that the range is not needed any more; it reads as zeros afterwards. For snapshots it is a write. */
  async discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#change(
      offset,
      length,
      (device) => device.discard?.(offset, length) ?? zero(device, offset, length),
    );
  }

  async #change(
    offset: ByteOffset,
    length: ByteLength,
    action: (device: BlockDevice) => Promise<void>,
  ): Promise<void> {
    this.#checkWritable();
    checkRange(offset, length, this.size);
    const { gate, copyOnWrite, device } = this.#engine;
    const wait = gate.enter();
    if (wait !== undefined) await wait;
    try {
      const copies = copyOnWrite.protect(offset, length);
      if (copies !== undefined) await copies;
      await action(device);
    } finally {
      gate.leave();
    }
  }

  /** Resolves when every write acknowledged before is on stable storage. */
  async flush(): Promise<void> {
    this.#checkWritable();
    await this.#engine.device.flush();
  }

  /**
   * Takes a snapshot: the volume as it is at one moment between this call and its return.
   * @throws HoldTimeoutError, LimitError, NoSpaceError, ReadOnlyError, DeviceError; then there is no new snapshot
   */
  async createSnapshot(options: CreateSnapshotOptions = {}): Promise<Snapshot> {
    this.#checkWritable();
    const record = await this.#creating.runExclusive(() => createSnapshot(this.#engine, options));
    return this.#handleOf(record);
  }

  /** Deletes the oldest `count` snapshots, the oldest first; durable when it resolves. */
  async deleteOldest(count = 1): Promise<void> {
    this.#checkWritable();
    const { chain, copyOnWrite } = this.#engine;
    const last = chain.records[Math.min(count, chain.records.length) - 1];
    if (last !== undefined) await chain.removeThrough(last, copyOnWrite, 'requested');
  }

  /** What changed from `since` to `until`, in ascending extents, exact at 16 KiB. @throws SnapshotDeletedError, InvalidArgumentError */
  async *changedBlocks({
    since,
    until,
    compare = false,
    signal,
  }: ChangedBlocksOptions): AsyncGenerator<ChangedExtent> {
    this.#checkOpen();
    const { chain } = this.#engine;
    const from = this.#recordOf(since);
    const to = until === undefined ? undefined : this.#recordOf(until);
    const first = chain.indexOf(from);
    const end = to === undefined ? chain.records.length : chain.indexOf(to);
    if (end < first)
      throw new InvalidArgumentError(
        `snapshot ${since.id} is newer than ${until?.id}; give the older one first`,
      );
    const tables = chain.records.slice(first, end).flatMap(({ area }) => area?.table ?? []);
    for (const extent of changedExtents(tables, this.size)) {
      signal?.throwIfAborted();
      if (compare) yield* differing(since, until ?? this, extent);
      // The store keeps a copy of block 0 in every snapshot, changed or not.
      else if (extent.offset === 0 && this.#engine.store.hidesStartBlock)
        yield* firstCompared(since, until ?? this, extent);
      else yield extent;
    }
  }

  #recordOf(snapshot: Snapshot): SnapshotRecord {
    const record = this.#engine.chain.find(snapshot.storeId);
    if (record === undefined)
      throw new InvalidArgumentError(`snapshot ${snapshot.id} is not one of this volume, or gone`);
    if (record.damage !== undefined) throw record.damage;
    return record;
  }

  /**
   * Changes the limit on diff-area space, in bytes; 0: none. If more is in use, the oldest snapshots go.
   */
  async setMaximumSize(maximumSize: ByteLength): Promise<void> {
    this.#checkWritable();
    checkRange(maximumSize, 0, Number.MAX_SAFE_INTEGER);
    await this.#engine.store.control.setMaximumSize(maximumSize);
    await this.#engine.space.shrinkTo(maximumSize);
  }

  get figures(): VolumeFigures {
    const { store, chain, copyOnWrite, pools, gate, figures } = this.#engine;
    const areas = chain.records.flatMap(({ area }) => area ?? []);
    return {
      layout: store.layout,
      storeName: store.name,
      usedBytes: areas.reduce((sum, area) => sum + area.usedBytes, 0),
      allocatedBytes: store.allocated(),
      maximumBytes: store.control.start.maximumSize,
      tableMemoryBytes: areas.reduce((sum, area) => sum + area.table.memoryBytes, 0),
      copies: copyOnWrite.figures,
      queues: { ...pools.lengths, held: gate.queued },
      lastHoldMs: figures.holdMs,
    };
  }

  /**
   * Waits for everything under way, makes it durable, records that the volume was closed properly, and closes its device.
   * May be called repeatedly.
   */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    const { gate, pools, chain, store, device } = this.#engine;
    try {
      if (this.#writable && gate.failure === undefined) {
        await this.#creating.runExclusive(() => gate.hold(undefined));
        await pools.idle();
        await this.#recordClean();
      }
      gate.shut(new ClosedError(`${this.name} is closed`));
    } finally {
      await pools.idle();
      await closeAreas(chain.records);
      await store.close();
      if (device !== this.#device) await device.close();
      await this.#device.close();
    }
  }

  async #recordClean(): Promise<void> {
    const { chain, store, device, environment } = this.#engine;
    const area = chain.newest?.area;
    if (area !== undefined) {
      await area.flush();
      await area.writeWatermark();
      await area.flush();
    }
    await device.flush();
    // In-volume the record itself changes the device, so its time is set to what the record says.
    const inside = store.hidesStartBlock;
    const now = BigInt(Math.floor(environment.clock.now() / 1000)) * 1_000_000_000n;
    const modifiedAt = inside && device.setModifiedAt !== undefined ? now : await device.modifiedAt?.();
    await store.control.setClean({ volumeSize: device.size, modifiedAt: modifiedAt ?? 0n });
    if (inside) await device.setModifiedAt?.(now);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new ClosedError(`${this.name} is closed`);
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (!this.#writable) throw new ReadOnlyError(`${this.name} is open for reading only`);
  }
}

const ZEROS = new Uint8Array(1024 * 1024);

async function zero(device: BlockDevice, offset: ByteOffset, length: ByteLength): Promise<void> {
  if (device.writeZeroes !== undefined) return device.writeZeroes(offset, length);
  for (let done = 0; done < length; done += ZEROS.byteLength) {
    await device.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.byteLength, length - done)));
  }
}

/** The parts of `extent` that differ between two sources, block by block. */
async function* differing(
  a: ByteSource,
  b: ByteSource,
  extent: ChangedExtent,
): AsyncGenerator<ChangedExtent> {
  const [left, right] = [Buffer.alloc(BLOCK_SIZE), Buffer.alloc(BLOCK_SIZE)];
  let start: ByteOffset | undefined;
  const end = extent.offset + extent.length;
  for (let at = extent.offset; at < end; at += BLOCK_SIZE) {
    const length = Math.min(BLOCK_SIZE, end - at);
    await a.read(at, left.subarray(0, length));
    await b.read(at, right.subarray(0, length));
    const differs = left.compare(right, 0, length, 0, length) !== 0;
    if (differs) start ??= at;
    else if (start !== undefined) {
      yield { offset: start, length: at - start };
      start = undefined;
    }
  }
  if (start !== undefined) yield { offset: start, length: end - start };
}

/** `extent`, which begins at 0, without its first block if that is equal in both. */
async function* firstCompared(
  a: ByteSource,
  b: ByteSource,
  extent: ChangedExtent,
): AsyncGenerator<ChangedExtent> {
  const first = { offset: 0, length: Math.min(BLOCK_SIZE, extent.length) };
  const rest = { offset: first.length, length: extent.length - first.length };
  let changed = false;
  for await (const _ of differing(a, b, first)) changed = true;
  if (changed) yield extent;
  else if (rest.length > 0) yield rest;
}
