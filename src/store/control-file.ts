/**
 * The control file: start block and control blocks, which say what snapshots a volume has.
 *
 * A snapshot is a pair of items in one 512-byte sector, so one sector write makes it exist or makes it go. Every change
 * here is such a write followed by a flush. All control blocks are laid out when the store is made: they
 * hold 512 snapshots, and recording, deleting or failing a snapshot never needs new space.
 *
 * Shared state: the images of start and control blocks. `#mutex` makes each change (image, write, flush) one step.
 * A change that fails is undone in the image; what is on the device is then unknown until a later change of the
 * same sector succeeds, so the caller must not rely on either state.
 */
import { isDeepStrictEqual } from 'node:util';
import { Mutex } from 'async-mutex';
import type { BlockDevice } from '../device/block-device.js';
import { assert, FormatError, LimitError } from '../errors.js';
import { SNAPSHOTS_MAX, START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import {
  type ControlItem,
  type DiffAreaItem,
  decodeControlBlock,
  encodeControlBlock,
  encodeItem,
  ITEM_PAIRS,
  isPairSound,
  itemPosition,
  SnapshotState,
  sealPair,
  sectorOfItem,
} from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import {
  type CleanRecord,
  decodeStartBlock,
  encodeStartBlock,
  type SpaceRules,
  type StartBlock,
  type StartExtension,
} from '../format/start-block.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import { byCreation, byOrder, type CatalogEntry, checkOrders, isDeleting, isShadowCopy } from './catalog.js';
import { outcomeOf, remembering, type SetOutcome } from './set-records.js';

/** Control blocks needed for as many snapshots as a volume may have: 63 pairs fit in each. */
export const CONTROL_BLOCKS = Math.ceil(SNAPSHOTS_MAX / ITEM_PAIRS.length);

export interface BitChange {
  readonly set?: number;
  readonly clear?: number;
}

/** What `update` may change. */
export type AreaChange = Partial<Omit<DiffAreaItem, 'kind' | 'storeId'>>;

/** Start block of one of our own stores. */
export type OwnStartBlock = StartBlock & { readonly extension: StartExtension };

interface ControlBlock {
  readonly offset: ByteOffset;
  readonly image: Uint8Array;
}

/** Where the two items of one snapshot lie. */
interface Place {
  readonly block: ControlBlock;
  readonly item: number;
}

export class ControlFile {
  readonly #device: BlockDevice;
  readonly #mutex = new Mutex();
  #start: OwnStartBlock;
  readonly #blocks: ControlBlock[] = [];
  readonly #entries = new Map<Guid, { entry: CatalogEntry; place: Place }>();
  readonly #freePlaces: Place[] = [];

  private constructor(device: BlockDevice, start: OwnStartBlock) {
    this.#device = device;
    this.#start = start;
  }

  /** Lays out an empty control file with its control blocks from `controlOffset`; durable when it returns. */
  static async create(
    device: BlockDevice,
    start: Omit<OwnStartBlock, 'firstControlBlock'>,
    controlOffset: ByteOffset,
  ): Promise<void> {
    for (let i = 0; i < CONTROL_BLOCKS; i++) {
      const offset = controlOffset + i * BLOCK_SIZE;
      const block = encodeControlBlock(
        {
          fileOffset: offset,
          volumeOffset: offset,
          nextOffset: i + 1 < CONTROL_BLOCKS ? offset + BLOCK_SIZE : 0,
          epoch: start.extension.storeId,
        },
        [],
      );
      await device.write(offset, block);
    }
    await device.flush(); // before the start block makes them count
    await device.write(START_BLOCK_OFFSET, encodeStartBlock({ ...start, firstControlBlock: controlOffset }));
    await device.flush();
  }

  /** @throws FormatError, UnsupportedError, DeviceError */
  static async open(device: BlockDevice): Promise<ControlFile> {
    const startBytes = new Uint8Array(START_BLOCK_SIZE);
    await device.read(START_BLOCK_OFFSET, startBytes);
    const start = decodeStartBlock(startBytes, { offset: START_BLOCK_OFFSET });
    if (start.extension === undefined) throw new FormatError('the start block was not written by volsnap');
    const control = new ControlFile(device, { ...start, extension: start.extension });
    await control.#readBlocks();
    return control;
  }

  async #readBlocks(): Promise<void> {
    let offset = this.#start.firstControlBlock;
    while (offset !== 0) {
      if (this.#blocks.length === CONTROL_BLOCKS)
        throw new FormatError(`control block chain goes on after ${CONTROL_BLOCKS} blocks`);
      if (offset % BLOCK_SIZE !== 0 || offset + BLOCK_SIZE > this.#device.size) {
        throw new FormatError(
          `control block chain points to ${offset}, device of ${this.#device.size} bytes`,
        );
      }
      const block = { offset, image: new Uint8Array(BLOCK_SIZE) };
      await this.#device.read(offset, block.image);
      const decoded = decodeControlBlock(block.image, { offset });
      if (decoded.header.extension?.epoch !== this.#start.extension.storeId) {
        throw new FormatError(`control block at ${offset} belongs to another store`);
      }
      this.#blocks.push(block);
      for (const item of ITEM_PAIRS) this.#collectPair(decoded.items, { block, item });
      offset = decoded.header.nextOffset;
    }
    checkOrders(this.entries);
    if (this.#blocks.length === 0) throw new FormatError('the start block names no control block');
  }

  #collectPair(all: readonly ControlItem[], place: Place): void {
    const first = all[place.item];
    const second = all[place.item + 1];
    if (first?.kind !== 'snapshot' && second?.kind !== 'diff-area') {
      this.#freePlaces.push(place);
      return;
    }
    if (first?.kind !== 'snapshot' || second?.kind !== 'diff-area' || first.storeId !== second.storeId) {
      throw new FormatError(
        `control block at ${place.block.offset}: items ${place.item} and ${place.item + 1} are not the two of one snapshot`,
      );
    }
    if (!isPairSound(place.block.image, place.item, this.#start.extension.storeId)) {
      throw new FormatError(
        `control block at ${place.block.offset}: items ${place.item} and ${place.item + 1} fail their checksum`,
      );
    }
    if (this.#entries.has(first.storeId))
      throw new FormatError(`control blocks name snapshot ${first.storeId} twice`);
    this.#entries.set(first.storeId, { entry: { snapshot: first, diffArea: second }, place });
  }

  get start(): OwnStartBlock {
    return this.#start;
  }

  /** Snapshots of volsnap, oldest first. */
  get entries(): CatalogEntry[] {
    return this.#all.filter((entry) => !isShadowCopy(entry)).sort(byOrder);
  }

  /** Shadow copies of Windows that the store has taken over, oldest first; all are older than `entries`. */
  get shadowCopies(): CatalogEntry[] {
    return this.#all.filter(isShadowCopy).sort(byCreation);
  }

  get #all(): CatalogEntry[] {
    return [...this.#entries.values()].map(({ entry }) => entry);
  }

  has(storeId: Guid): boolean {
    return this.#entries.has(storeId);
  }

  /** What the device holds at a moment between two changes. @throws FormatError, UnsupportedError, DeviceError */
  async reread(): Promise<{ readonly onDevice: ControlFile; readonly isSame: boolean }> {
    return this.#mutex.runExclusive(async () => {
      const onDevice = await ControlFile.open(this.#device);
      const said = ({ entries, shadowCopies }: ControlFile) => [...shadowCopies, ...entries];
      return { onDevice, isSame: isDeepStrictEqual(said(onDevice), said(this)) };
    });
  }

  /** Writes everything again, durably, as it was read and changed since: for a device that lost it. @throws DeviceError */
  async rewrite(): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      for (const { offset, image } of this.#blocks) await this.#device.write(offset, image.slice());
      await this.#device.write(START_BLOCK_OFFSET, encodeStartBlock(this.#start));
      await this.#device.flush();
    });
  }

  /** Makes a snapshot exist: durable when it returns. @throws LimitError, DeviceError (then call `remove`) */
  async publish(entry: CatalogEntry): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const { storeId } = entry.snapshot;
      assert(!this.#entries.has(storeId), () => `snapshot ${storeId} is in the control file already`);
      const place = this.#freePlaces[0];
      const deleting = this.entries.filter(isDeleting).length;
      if (this.#entries.size - deleting >= SNAPSHOTS_MAX)
        throw new LimitError(`a volume has at most ${SNAPSHOTS_MAX} snapshots; delete one first`);
      if (place === undefined)
        throw new LimitError(`${deleting} deleted snapshots are being merged; wait until some are gone`);
      this.#freePlaces.shift();
      this.#entries.set(storeId, { entry, place });
      await this.#writePair(place, entry.snapshot, entry.diffArea);
    });
  }

  /** Shows that the device still takes what is written, before a snapshot depends on it. @throws DeviceError */
  async flush(): Promise<void> {
    await this.#device.flush();
  }

  /** Changes the diff-area item of a snapshot, unless that is gone meanwhile; durable when it returns. */
  async update(storeId: Guid, change: AreaChange | ((item: DiffAreaItem) => AreaChange)): Promise<void> {
    await this.#replace(storeId, ({ snapshot, diffArea }) => ({
      snapshot,
      diffArea: { ...diffArea, ...(typeof change === 'function' ? change(diffArea) : change) },
    }));
  }

  /**
   * Sets and clears `SnapshotFlag`s, unless the snapshot is gone meanwhile; durable when it returns.
   * @returns its flags now
   */
  async setFlags(storeId: Guid, { set = 0, clear = 0 }: BitChange): Promise<number> {
    const entry = await this.#replace(storeId, ({ snapshot, diffArea }) => ({
      snapshot: { ...snapshot, flags: (snapshot.flags & ~clear) | set },
      diffArea,
    }));
    return entry?.snapshot.flags ?? 0;
  }

  /** Sets and clears `SnapshotState`s, unless the snapshot is gone meanwhile; durable when it returns. */
  async setState(storeId: Guid, { set = 0, clear = 0 }: BitChange): Promise<void> {
    await this.#replace(storeId, ({ snapshot, diffArea }) => ({
      snapshot,
      diffArea: { ...diffArea, state: (diffArea.state & ~clear) | set },
    }));
  }

  /** Replaces both items of a snapshot. @returns them, or `undefined` if it is gone */
  #replace(storeId: Guid, change: (entry: CatalogEntry) => CatalogEntry): Promise<CatalogEntry | undefined> {
    return this.#mutex.runExclusive(async () => {
      const known = this.#entries.get(storeId);
      if (known === undefined) return undefined;
      const changed = change(known.entry);
      await this.#writePair(known.place, changed.snapshot, changed.diffArea);
      known.entry = changed;
      return changed;
    });
  }

  /**
   * Is the commit record of a set here, or was it once? `unknown`: too many were removed to remember all of them.
   * What is told is durable, in a control file that was opened for writing and marked so.
   */
  async outcomeOf(recordId: Guid): Promise<SetOutcome> {
    return this.#mutex.runExclusive(async () =>
      outcomeOf(recordId, this.#entries.get(recordId)?.entry.diffArea, this.#start.extension),
    );
  }

  /** Makes a snapshot no longer exist: durable when it returns. It may be repeated after a failure. */
  async remove(storeId: Guid): Promise<void> {
    await this.#remove(storeId, (state) => (state & SnapshotState.setRecord) !== 0);
  }

  /** The same for a snapshot whose `publish` failed: it never was. */
  async withdraw(storeId: Guid): Promise<void> {
    await this.#remove(storeId, () => false);
  }

  async #remove(storeId: Guid, isRecord: (state: number) => boolean): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const known = this.#entries.get(storeId);
      if (known === undefined) return;
      // Before it goes: members that are still pending will ask for it.
      if (isRecord(known.entry.diffArea.state)) await this.#remember(storeId);
      await this.#writePair(known.place, { kind: 'free' }, { kind: 'free' });
      this.#entries.delete(storeId);
      this.#freePlaces.unshift(known.place);
    });
  }

  /** Changes the limit on diff-area space; durable when it returns. */
  async setMaximumSize(maximumSize: ByteLength): Promise<void> {
    await this.#changeStart((start) => ({ ...start, maximumSize }));
  }

  /** Changes what happens when there is no room; durable when it returns. */
  async setSpaceRules(spaceRules: SpaceRules): Promise<void> {
    await this.#changeExtension({ spaceRules });
  }

  /** Before the volume becomes longer: if that is cut off, it has either size. Durable when it returns. */
  async announceGrowth(growingTo: ByteLength): Promise<void> {
    await this.#changeExtension({ growingTo });
  }

  /** The volume has become so long; durable when it returns. */
  async setProtectedSize(protectedSize: ByteLength): Promise<void> {
    await this.#changeExtension({ protectedSize, growingTo: 0 });
  }

  /** Records a clean close, also of a volume whose growth could not be recorded; durable when it returns. */
  async markClosed(clean: CleanRecord): Promise<void> {
    await this.#changeExtension({ clean, protectedSize: clean.volumeSize, growingTo: 0 });
  }

  /**
   * Records that the volume, of so many bytes, is in use; durable when it returns. After an unclean stop everything that
   * was read is written again: a flush that failed may have left in the page cache what the device never got.
   */
  async markOpen(protectedSize: ByteLength): Promise<void> {
    if (this.#start.extension.clean === undefined) await this.#rewriteBlocks();
    await this.#changeExtension({ protectedSize, growingTo: 0, clean: undefined });
  }

  /** Makes durable what was read here after an unclean stop, and changes nothing else. */
  async makeDurable(): Promise<void> {
    if (this.#start.extension.clean !== undefined) return;
    await this.#rewriteBlocks();
    await this.#changeStart((start) => start);
  }

  async #rewriteBlocks(): Promise<void> {
    for (const { offset, image } of this.#blocks) await this.#device.write(offset, image.slice());
  }

  async #changeExtension(change: Partial<StartExtension>): Promise<void> {
    await this.#changeStart((start) => ({ ...start, extension: { ...start.extension, ...change } }));
  }

  async #changeStart(change: (start: OwnStartBlock) => OwnStartBlock): Promise<void> {
    await this.#mutex.runExclusive(() => this.#writeStart(change(this.#start)));
  }

  async #remember(recordId: Guid): Promise<void> {
    const { extension } = this.#start;
    const changed = remembering(recordId, extension);
    if (changed !== extension) await this.#writeStart({ ...this.#start, extension: changed });
  }

  async #writeStart(changed: OwnStartBlock): Promise<void> {
    await this.#device.write(START_BLOCK_OFFSET, encodeStartBlock(changed));
    await this.#device.flush();
    this.#start = changed;
  }

  async #writePair(place: Place, first: ControlItem, second: ControlItem): Promise<void> {
    const { block, item } = place;
    const sector = sectorOfItem(item);
    const before = block.image.slice(sector, sector + SECTOR_SIZE);
    encodeItem(block.image, itemPosition(item), first);
    encodeItem(block.image, itemPosition(item + 1), second);
    if (first.kind === 'snapshot') sealPair(block.image, item, this.#start.extension.storeId);
    assert(sector === sectorOfItem(item + 1), () => `items ${item} and ${item + 1} lie in two sectors`);
    try {
      await this.#device.write(block.offset + sector, block.image.slice(sector, sector + SECTOR_SIZE));
      await this.#device.flush();
    } catch (error) {
      block.image.set(before, sector);
      // The best that can be done for whoever opens the store next; the failure itself is the caller's to handle.
      await this.#device.write(block.offset + sector, before).catch(() => undefined);
      throw error;
    }
  }
}
