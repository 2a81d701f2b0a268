/**
 * One shadow copy that Windows made, read as libvshadow reads it.
 *
 * A block is looked for in the snapshot's own table, then in those of the newer snapshots in order of age, then on the
 * volume. A move sends the question on to the next newer snapshot at another block. Overlays and the bitmap count only
 * for the snapshot that is read, never for an older one that reads through it.
 *
 * Where a store of volsnap has taken the shadow copies over, its oldest snapshot takes the place of the volume, and none of them is the
 * newest any more.
 */
import type { BlockDevice } from '../device/block-device.js';
import { checkRange } from '../device/range.js';
import { FormatError, type VolsnapError } from '../errors.js';
import type { ApplicationInformation } from '../format/application-information.js';
import type { SnapshotItem } from '../format/control-block.js';
import { millisecondsFromFiletime } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
  SECTOR_SIZE,
} from '../units.js';
import { DeviceReads, type ReadSource } from './device-reads.js';
import type { ForeignDiffArea } from './foreign-diff-area.js';
import type { ForeignTable } from './foreign-table.js';
import type { UnusedBlocks } from './unused-blocks.js';

/** A table that cannot be read, and whose it is. */
export interface TableFault {
  readonly storeId: Guid;
  readonly error: VolsnapError;
}

/** What `ForeignStore` found out about a snapshot. */
export interface ForeignSnapshotParts {
  readonly item: SnapshotItem;
  readonly size: ByteLength;
  /** `undefined` where the catalog does not say where it lies. */
  readonly content: ForeignDiffArea | undefined;
  /** Of this snapshot, or of a newer one through which it is read. */
  readonly tableFault: TableFault | undefined;
}

const SECTORS_PER_BLOCK = BLOCK_SIZE / SECTOR_SIZE;

/** Instead of a device offset: the block was unused and reads as zeros; */
const ZEROS = -1;
/** or, from here on downwards, a block of what lies below all shadow copies, by its number. */
const FIRST_BELOW = -2;
type Source = number;

export class ForeignSnapshot {
  /** GUID of the diff area; unlike the identifier of the snapshot it is always there. */
  readonly storeId: Guid;
  /** Identifier as backup applications know it; `undefined` where the application information is damaged. */
  readonly snapshotId: Guid | undefined;
  /** Snapshots of several volumes taken together share it. */
  readonly setId: Guid | undefined;
  /** Windows keeps no labels. */
  readonly label: string | undefined;
  readonly createdAt: Date;
  /** As stored: 100 ns ticks since 1601. */
  readonly createdAtTicks: bigint;
  readonly order: number;
  readonly flags: number;
  /** As its catalog item states it. */
  readonly volumeSize: ByteLength;
  /** Bytes that can be read: the volume size, but no more than the device has. */
  readonly size: ByteLength;
  readonly applicationInformation: ApplicationInformation | undefined;
  readonly allocatedBytes: ByteLength;
  readonly state: 'ok' | 'unreadable';
  /** Why it cannot be read; `undefined` while it can. */
  readonly reason: string | undefined;
  /** Makes every older snapshot unreadable too. */
  readonly tableFault: TableFault | undefined;
  readonly #device: BlockDevice;
  readonly #content: ForeignDiffArea | undefined;
  readonly #newer: ForeignSnapshot | undefined;
  readonly #below: ReadSource;

  /**
   * @param newer the next newer snapshot, through which this one is read
   * @param below what is read where no snapshot has a block: the volume, or a snapshot of it
   */
  constructor(
    device: BlockDevice,
    parts: ForeignSnapshotParts,
    newer: ForeignSnapshot | undefined,
    below: ReadSource = device,
  ) {
    this.#below = below;
    const { item, content } = parts;
    const information = content?.information;
    this.#device = device;
    this.#content = content;
    this.#newer = newer;
    this.tableFault = parts.tableFault;
    this.storeId = item.storeId;
    this.snapshotId = information?.snapshotId;
    this.setId = information?.setId;
    this.label = information?.label;
    this.createdAtTicks = item.createdAt;
    this.createdAt = new Date(millisecondsFromFiletime(item.createdAt));
    this.order = item.order;
    this.flags = item.flags;
    this.volumeSize = item.volumeSize;
    this.size = parts.size;
    this.applicationInformation = information;
    this.allocatedBytes = content?.allocatedBytes ?? 0;
    this.reason = reasonOf(item.storeId, parts);
    this.state = this.reason === undefined ? 'ok' : 'unreadable';
  }

  /** Entries of its table, as stored; 0 where the table cannot be read. */
  get entryCount(): number {
    return this.#content?.table?.entryCount ?? 0;
  }

  get usedBytes(): ByteLength {
    const { otherBlocks = 0, table } = this.#content ?? {};
    return (otherBlocks + (table?.dataBlocks ?? 0)) * BLOCK_SIZE;
  }

  /** Its table; `undefined` where it cannot be read. */
  get table(): ForeignTable | undefined {
    return this.#content?.table;
  }

  /**
   * Blocks that changed between this snapshot and the next newer one, ascending.
   * @throws FormatError where its table cannot be read
   */
  tableBlocks(): Iterable<BlockNumber> {
    return this.#table().changedBlocks();
  }

  /**
   * Blocks that something was written to in this snapshot itself, in no order: they are not as the volume was.
   * @throws FormatError where its table cannot be read
   */
  overlayBlocks(): Iterable<BlockNumber> {
    return this.#table().overlayBlocks();
  }

  /** What may read as zeros here, whatever the volume has: of the newest snapshot only, and only if it has a bitmap. */
  get unused(): UnusedBlocks | undefined {
    return this.#content?.unused;
  }

  /** @throws as `readInto` */
  async read(offset: ByteOffset, length: ByteLength): Promise<Uint8Array> {
    checkRange(this.#named(), offset, length);
    const target = new Uint8Array(length);
    await this.readInto(offset, target);
    return target;
  }

  /**
   * Fills `target` with the volume as it was. Any range within `size`. If the volume is written meanwhile, a block of it may have been overwritten
   * before it was read; then its copy was entered before that, and is read instead.
   * @throws InvalidArgumentError for a range outside; FormatError where state is 'unreadable' or a copy lies past the
   *   end of the device; DeviceError
   */
  async readInto(offset: ByteOffset, target: Uint8Array): Promise<void> {
    checkRange(this.#named(), offset, target.byteLength);
    if (this.reason !== undefined) throw this.#unreadable(this.reason);
    const newest = this.#newest().#table();
    for (;;) {
      const { generation } = newest;
      const places = await this.#readOnce(offset, target);
      if (newest.generation === generation) return;
      const first = blockOf(offset);
      if (places.every((place, index) => this.#find(first + index) === place)) return;
    }
  }

  /** @returns where each block was read */
  async #readOnce(offset: ByteOffset, target: Uint8Array): Promise<Source[]> {
    const content = new DeviceReads(this.#device);
    // What lies on one device is read side by side.
    const below = this.#below === this.#device ? content : new DeviceReads(this.#below);
    const overlays = new DeviceReads(this.#device);
    const places: Source[] = [];
    const end = offset + target.byteLength;
    for (let at = offset; at < end; ) {
      const block = blockOf(at);
      const start = offsetOfBlock(block);
      const stop = Math.min(end, start + BLOCK_SIZE);
      const part = target.subarray(at - offset, stop - offset);
      const from = this.#find(block);
      places.push(from);
      if (from >= 0) await content.add(from + (at - start), part, block);
      else if (from === ZEROS) part.fill(0);
      else await below.add(offsetOfBlock(FIRST_BELOW - from) + (at - start), part, block);
      await this.#addOverlay(overlays, block, at - start, part, [below, content]);
      at = stop;
    }
    // Sectors of an overlay are laid over the block, so they are read last.
    await below.finish();
    await content.finish();
    await overlays.finish();
    return places;
  }

  /** The newest of all: only its table changes. */
  #newest(): ForeignSnapshot {
    let newest: ForeignSnapshot = this;
    while (newest.#newer !== undefined) newest = newest.#newer;
    return newest;
  }

  async #addOverlay(
    reads: DeviceReads,
    block: BlockNumber,
    from: number,
    part: Uint8Array,
    under: readonly DeviceReads[],
  ): Promise<void> {
    const overlay = this.#table().overlayOf(block);
    if (overlay === undefined) return;
    // `add` may start reading: what lies under it must be there first.
    for (const reads of under) await reads.finish();
    for (let sector = 0; sector < SECTORS_PER_BLOCK; sector++) {
      if (((overlay.sectors >>> sector) & 1) === 0) continue;
      const low = Math.max(from, sector * SECTOR_SIZE);
      const high = Math.min(from + part.byteLength, (sector + 1) * SECTOR_SIZE);
      if (low < high) await reads.add(overlay.offset + low, part.subarray(low - from, high - from), block);
    }
  }

  /** Where the content of `block` lies, without overlays. */
  #find(block: BlockNumber): Source {
    let at = block;
    for (let snapshot: ForeignSnapshot = this; ; snapshot = snapshot.#newer) {
      const table = snapshot.#table();
      const place = table.placeOf(at);
      if (place !== undefined && place >= 0) return place;
      if (place !== undefined) at = -1 - place;
      if (snapshot.#newer !== undefined) continue;
      // From the newest on it is the volume. Only the newest has a bitmap of its own to ask, and what moved here is in
      // use whatever the bitmap says.
      const mayBeUnused = place === undefined && !table.isMoveTarget(at);
      return mayBeUnused && this.#content?.unused?.has(at) === true ? ZEROS : FIRST_BELOW - at;
    }
  }

  #table(): ForeignTable {
    const table = this.#content?.table;
    if (table === undefined) throw this.#unreadable(this.reason ?? 'its table is missing');
    return table;
  }

  #unreadable(reason: string): FormatError {
    return new FormatError(`snapshot of store ${this.storeId} cannot be read: ${reason}`);
  }

  #named(): { name: string; size: ByteLength } {
    return { name: `snapshot of store ${this.storeId}`, size: this.size };
  }
}

function reasonOf(storeId: Guid, { content, tableFault }: ForeignSnapshotParts): string | undefined {
  if (tableFault === undefined) return content?.bitmapFault?.message;
  const { message } = tableFault.error;
  if (tableFault.storeId === storeId) return message;
  return `it is read through the newer snapshot of store ${tableFault.storeId}, which cannot be: ${message}`;
}
