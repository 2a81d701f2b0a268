/** The shadow copies of a volume that Windows wrote, as snapshots like any other. They can only be read. */

import { asTarget } from '../arguments.js';
import { CopyFigures } from '../copy-on-write/copy-host.js';
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { NIL_GUID } from '../format/guid.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import {
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  blocksIn,
  offsetOfBlock,
} from '../units.js';
import type { ForeignSnapshot } from '../windows/foreign-snapshot.js';
import { ForeignStore } from '../windows/foreign-store.js';
import { type BlockRun, type ChangedExtent, cutBefore, extentsOf, grownFrom } from './changed-blocks.js';
import type { ChangedOptions, History, VolumeFigures } from './history.js';
import { withUnused } from './windows-unused.js';

export class WindowsHistory implements History {
  readonly volume: BlockDevice;
  readonly snapshots: readonly WindowsSnapshot[];
  readonly #store: ForeignStore;

  private constructor(volume: BlockDevice, store: ForeignStore) {
    this.volume = volume;
    this.#store = store;
    this.snapshots = store.snapshots.map((snapshot) => new WindowsSnapshot(snapshot));
  }

  /** @throws FormatError, UnsupportedError, DeviceError */
  static async open(device: BlockDevice): Promise<WindowsHistory> {
    return new WindowsHistory(device, await ForeignStore.open(device));
  }

  /** What was odd about the store but did no harm. */
  get notes(): readonly string[] {
    return this.#store.notes;
  }

  get figures(): VolumeFigures {
    const sum = (of: (snapshot: Snapshot) => number) =>
      this.snapshots.reduce((total, each) => total + of(each), 0);
    return {
      layout: 'windows',
      storeName: this.volume.name,
      usedBytes: sum((snapshot) => snapshot.usedBytes),
      allocatedBytes: sum((snapshot) => snapshot.allocatedBytes),
      maximumBytes: this.#store.startBlock.maximumSize,
      space: undefined,
      tableMemoryBytes: 0,
      copies: new CopyFigures(),
      deletion: { snapshots: 0, allocatedBytes: 0, mergedSnapshots: 0, mergedBlocks: 0, mergedBytes: 0 },
      queues: { copy: 0, commit: 0, background: 0, held: 0 },
      writeBuffer: undefined,
      lastHoldMs: 0,
    };
  }

  async *changed(options: ChangedOptions): AsyncGenerator<ChangedExtent> {
    const { since, until, offset = 0, length = this.volume.size, signal } = options;
    const first = this.#indexOf(since);
    const end = until === undefined ? this.snapshots.length : this.#indexOf(until);
    if (end < first) {
      throw new InvalidArgumentError(
        `snapshot ${since.id} is newer than ${until?.id}; give the older one first`,
      );
    }
    const size = until?.size ?? this.volume.size;
    const stop = Math.min(size, offset + length);
    if (end === first || offset >= stop) return;
    const [from, to] = [blockOf(offset), blocksIn(stop)];
    const known = Math.min(to, Math.max(from, grownFrom(since.size, size)));
    const passed = this.snapshots.slice(first, end).map(({ foreign }) => foreign);
    const last = this.snapshots[end]?.foreign;
    const written = writtenBlocks(passed, last).filter((block) => block >= from && block < known);
    // Only the newest snapshot has any, so of the two it is the one that has.
    const unused = passed[0]?.unused ?? last?.unused;
    const search = { start: from, end: known, size, a: since, b: until ?? this.volume, signal };
    const groups = unused === undefined ? [written] : withUnused(written, { ...search, unused });
    for await (const blocks of groups)
      for (const extent of extentsOf(blocks.map(runOf), stop)) yield cutBefore(extent, offset);
    if (known < to) {
      const at = Math.max(offset, offsetOfBlock(known));
      yield { offset: at, length: stop - at };
    }
  }

  #indexOf(snapshot: Snapshot): number {
    const index = (this.snapshots as readonly Snapshot[]).indexOf(snapshot);
    if (index < 0) throw new InvalidArgumentError(`snapshot ${snapshot.id} is not one of this volume`);
    return index;
  }

  async close(): Promise<void> {
    // Nothing is open besides the device.
  }
}

/**
 * What was written while each of `passed` was the newest, and what was written to either side itself, which shows there alone.
 * Ascending.
 * @throws FormatError where one of them cannot be read
 */
function writtenBlocks(passed: readonly ForeignSnapshot[], last: ForeignSnapshot | undefined): BlockNumber[] {
  for (const { reason } of last === undefined ? passed : [...passed, last])
    if (reason !== undefined) throw new FormatError(reason);
  const blocks = new Set<BlockNumber>();
  for (const snapshot of passed) for (const block of snapshot.tableBlocks()) blocks.add(block);
  for (const side of [passed[0], last]) for (const block of side?.overlayBlocks() ?? []) blocks.add(block);
  return [...blocks].sort((a, b) => a - b);
}

const runOf = (block: BlockNumber): BlockRun => ({ start: block, end: block + 1 });

class WindowsSnapshot implements Snapshot {
  readonly writable = false;
  readonly movedBytes = 0;
  readonly label = undefined;
  readonly applicationInfo = undefined;
  readonly held = false;
  readonly heldUntil = undefined;
  /** What Windows skips counts only while the snapshot is the newest; it is not counted. */
  readonly unusedBytes = 0;

  constructor(readonly foreign: ForeignSnapshot) {}

  get id() {
    return this.foreign.snapshotId ?? this.foreign.storeId;
  }

  get storeId() {
    return this.foreign.storeId;
  }

  get setId() {
    return this.foreign.setId ?? NIL_GUID;
  }

  get createdAt() {
    return this.foreign.createdAt;
  }

  get order() {
    return this.foreign.order;
  }

  get size() {
    return this.foreign.size;
  }

  get usedBytes() {
    return this.foreign.usedBytes;
  }

  get allocatedBytes() {
    return this.foreign.allocatedBytes;
  }

  get state() {
    return this.foreign.reason === undefined ? 'ok' : 'damaged';
  }

  get problem() {
    return this.foreign.reason;
  }

  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    if (typeof target === 'number') return this.foreign.read(offset, target);
    const buffer = asTarget(target);
    await this.foreign.readInto(offset, buffer);
    return buffer;
  }

  async write(): Promise<void> {
    throw new UnsupportedError('a shadow copy that Windows made can only be read for now');
  }

  writeZeroes(): Promise<void> {
    return this.write();
  }

  async flush(): Promise<void> {
    // Nothing can be written.
  }

  setWritable(): Promise<void> {
    return this.write();
  }

  async delete(): Promise<void> {
    throw onlyRead();
  }

  async hold(): Promise<void> {
    throw onlyRead();
  }

  async release(): Promise<void> {
    throw onlyRead();
  }
}

const onlyRead = () => new UnsupportedError('a shadow copy that Windows made can only be read for now');
