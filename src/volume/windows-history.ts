/** The shadow copies of a volume that Windows wrote, as snapshots like any other. They can only be read. */

import { asTarget } from '../arguments.js';
import { CopyFigures } from '../copy-on-write/copy-on-write.js';
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { NIL_GUID } from '../format/guid.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type ByteOffset, blocksIn } from '../units.js';
import type { ForeignSnapshot } from '../windows/foreign-snapshot.js';
import { ForeignStore } from '../windows/foreign-store.js';
import { type ChangedExtent, extentsOf } from './changed-blocks.js';
import type { ChangedOptions, History, VolumeFigures } from './history.js';

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
      tableMemoryBytes: 0,
      copies: new CopyFigures(),
      queues: { copy: 0, commit: 0, background: 0, held: 0 },
      writeBuffer: undefined,
      lastHoldMs: 0,
    };
  }

  *changed({
    since,
    until,
    offset = 0,
    length = this.volume.size,
  }: ChangedOptions): Generator<ChangedExtent> {
    const first = this.#indexOf(since);
    const end = until === undefined ? this.snapshots.length : this.#indexOf(until);
    if (end < first) {
      throw new InvalidArgumentError(
        `snapshot ${since.id} is newer than ${until?.id}; give the older one first`,
      );
    }
    const blocks = new Set<BlockNumber>();
    for (const { foreign } of this.snapshots.slice(first, end)) {
      if (foreign.reason !== undefined) throw new FormatError(foreign.reason);
      for (const block of foreign.tableBlocks()) blocks.add(block);
    }
    const [from, to] = [Math.floor(offset / BLOCK_SIZE), blocksIn(offset + length)];
    const wanted = [...blocks].filter((block) => block >= from && block < to).sort((a, b) => a - b);
    const runs = wanted.map((block) => ({ start: block, end: block + 1 }));
    for (const extent of extentsOf(runs, Math.min(this.volume.size, offset + length))) {
      const start = Math.max(offset, extent.offset);
      yield { offset: start, length: extent.offset + extent.length - start };
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

class WindowsSnapshot implements Snapshot {
  readonly label = undefined;
  readonly applicationInfo = undefined;

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

  async delete(): Promise<void> {
    throw new UnsupportedError('a shadow copy that Windows made can only be read for now');
  }
}
