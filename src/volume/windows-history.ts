/** The shadow copies of a volume that Windows wrote, as snapshots like any other. */

import { CopyFigures } from '../copy-on-write/copy-host.js';
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, InvalidArgumentError, SnapshotDeletedError } from '../errors.js';
import type { Emit } from '../snapshot/events.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { type BlockNumber, blockOf, blocksIn, offsetOfBlock } from '../units.js';
import type { ForeignSnapshot } from '../windows/foreign-snapshot.js';
import { ForeignStore } from '../windows/foreign-store.js';
import { ForeignWriter, type ForeignWriterOptions } from '../windows/foreign-writer.js';
import { type BlockRun, type ChangedExtent, cutBefore, extentsOf, grownFrom } from './changed-blocks.js';
import type { ChangedOptions, History, VolumeFigures } from './history.js';
import { announcing, WindowsSnapshot } from './windows-snapshot.js';
import { withUnused } from './windows-unused.js';

export class WindowsHistory implements History {
  readonly volume: BlockDevice;
  readonly #store: ForeignStore;
  readonly #all: readonly WindowsSnapshot[];
  readonly #writer: ForeignWriter | undefined;

  private constructor(volume: BlockDevice, store: ForeignStore, writer?: ForeignWriter) {
    this.volume = volume;
    this.#store = store;
    this.#writer = writer;
    this.#all = store.snapshots.map((snapshot) => new WindowsSnapshot(snapshot, writer));
  }

  /** For reading. @throws FormatError, UnsupportedError, DeviceError */
  static async open(device: BlockDevice): Promise<WindowsHistory> {
    return new WindowsHistory(device, await ForeignStore.open(device));
  }

  /** For writing; see `ForeignWriter`. @throws FormatError, UnsupportedError, DeviceError */
  static async openForWriting(
    device: BlockDevice,
    options: ForeignWriterOptions,
    emit: Emit,
  ): Promise<{ readonly history: WindowsHistory; readonly writer: ForeignWriter }> {
    const all = new Map<ForeignSnapshot, WindowsSnapshot>();
    const writer = await ForeignWriter.open(device, options, announcing(emit, all));
    const history = new WindowsHistory(device, writer.store, writer);
    for (const snapshot of history.#all) all.set(snapshot.foreign, snapshot);
    return { history, writer };
  }

  /** Oldest first. */
  get snapshots(): readonly WindowsSnapshot[] {
    return this.#all.filter(({ deleted }) => deleted === undefined);
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
      copies: Object.assign(new CopyFigures(), this.#writer?.copies.figures),
      deletion: { snapshots: 0, allocatedBytes: 0, mergedSnapshots: 0, mergedBlocks: 0, mergedBytes: 0 },
      queues: { copy: 0, commit: 0, background: 0, held: 0 },
      writeBuffer: undefined,
      lastHoldMs: 0,
    };
  }

  async *changed(options: ChangedOptions): AsyncGenerator<ChangedExtent> {
    const { since, until, offset = 0, length = this.volume.size, signal } = options;
    const { snapshots } = this;
    const first = indexIn(snapshots, since);
    const end = until === undefined ? snapshots.length : indexIn(snapshots, until);
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
    const passed = snapshots.slice(first, end).map(({ foreign }) => foreign);
    const last = snapshots[end]?.foreign;
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

  async close(): Promise<void> {
    await this.#writer?.close();
  }
}

/**
 * What was written while each of `passed` was the newest, and what was written to either side itself, which shows there alone.
 * Ascending.
 * @throws FormatError where one of them cannot be read
 */
export function writtenBlocks(
  passed: readonly ForeignSnapshot[],
  last: ForeignSnapshot | undefined,
): BlockNumber[] {
  for (const { reason } of last === undefined ? passed : [...passed, last])
    if (reason !== undefined) throw new FormatError(reason);
  const blocks = new Set<BlockNumber>();
  for (const snapshot of passed) for (const block of snapshot.tableBlocks()) blocks.add(block);
  for (const side of [passed[0], last]) for (const block of side?.overlayBlocks() ?? []) blocks.add(block);
  return [...blocks].sort((a, b) => a - b);
}

export function indexIn(snapshots: readonly Snapshot[], snapshot: Snapshot): number {
  if (snapshot.state === 'deleted') throw new SnapshotDeletedError(`snapshot ${snapshot.id} is gone`);
  const index = snapshots.indexOf(snapshot);
  if (index < 0) throw new InvalidArgumentError(`snapshot ${snapshot.id} is not one of this volume`);
  return index;
}

const runOf = (block: BlockNumber): BlockRun => ({ start: block, end: block + 1 });
