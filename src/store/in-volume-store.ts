/**
 * The in-volume layout: control blocks and diff-area files lie on the device that holds the protected volume, in a
 * reserve behind the volume's own size. This is the layout that libvshadow and Windows' other readers understand.
 *
 *     0          0x1E00              protected size ↑16 KiB                                        device size
 *     │ volume … │ start block │ … volume │ control blocks (9) │ kept sector │ diff areas … free … │
 *
 * Or they lie in runs of a file inside the volume, as those of Windows do. Then the first run begins with the control blocks, the kept sector
 * and the list of the runs (`reserve-list.ts`), and for users of the volume the blocks of the reserve read as zeros.
 *
 * What is free is nowhere on disk: it is what no location list names.
 *
 * Shared state: the free extents. They change only between awaits, so no lock is needed.
 */
import { checkWhole } from '../arguments.js';
import { type BlockDevice, isResizable } from '../device/block-device.js';
import {
  FormatError,
  InvalidArgumentError,
  NoSpaceError,
  NotInitializedError,
  ReadOnlyError,
  UnsupportedError,
} from '../errors.js';
import { identify, SIGNATURE_BYTES } from '../filesystem/signature.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { guidFrom } from '../format/guid.js';
import { isStartBlock } from '../format/start-block.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, blockOf, blocksIn, roundUp } from '../units.js';
import { CONTROL_BLOCKS, ControlFile } from './control-file.js';
import { Extents } from './extents.js';
import { Leaving } from './leaving.js';
import { readLocationList } from './location-list.js';
import { checkGivesWay, newStart } from './new-start.js';
import { RESERVE_LIST_BLOCKS, readReserveList, wholeBlocks, writeReserveList } from './reserve-list.js';
import { type Piece, Runs } from './runs.js';
import { SpaceBudget } from './space-budget.js';
import { StartSectorDevice } from './start-sector-device.js';
import type {
  AreaFile,
  AttachedStore,
  AttachOptions,
  BlocksInside,
  InitializeOptions,
  OpenedArea,
  Store,
} from './store.js';

/** Blocks of the reserve that hold no diff areas: control blocks, the one with the kept sector; inside the volume its list too. */
const FIXED_BLOCKS = CONTROL_BLOCKS + 1;
const FIXED_BLOCKS_INSIDE = FIXED_BLOCKS + RESERVE_LIST_BLOCKS;
const FIXED_SIZE = FIXED_BLOCKS * BLOCK_SIZE;
/** The least that makes sense: one snapshot with a few blocks. */
const AREA_BLOCKS_MIN = 64;
export const RESERVE_MIN = FIXED_SIZE + AREA_BLOCKS_MIN * BLOCK_SIZE;

/** Where the kept sector lies, and what follows it: control blocks come first. */
const sectorAfter = (controlOffset: ByteOffset): ByteOffset => controlOffset + CONTROL_BLOCKS * BLOCK_SIZE;
const listAfter = (controlOffset: ByteOffset): ByteOffset => sectorAfter(controlOffset) + BLOCK_SIZE;

export interface InVolumeOptions {
  /** `initialize` only: bytes to reserve. The device is made longer by as much if it can be. */
  readonly reserve?: ByteLength;
  /**
   * `initialize` only: size of the volume, for a device that already has room behind it.
   * Everything from here to the end of the device becomes the reserve.
   */
  readonly protectedSize?: ByteLength;
  /**
   * `initialize` only: runs of a file of the volume, in the file's order, which become the reserve; in whole blocks of 16 KiB. What they
   * held is lost. For users of the volume they read as zeros from then on; writing there is `onProtectedWrite`'s affair. The file
   * must stay where it is.
   */
  readonly runs?: readonly { readonly offset: ByteOffset; readonly length: ByteLength }[];
  /**
   * `initialize` only: go on even if the file system needs the sector at 0x1E00. The volume is then whole only when it
   * is read through volsnap; its snapshots are whole for every reader.
   */
  readonly overFileSystem?: boolean;
}

/** @throws InvalidArgumentError for a reserve that no device can have */
export function checkReserve({ runs, reserve, protectedSize }: InVolumeOptions): void {
  if (runs !== undefined) {
    if (reserve !== undefined || protectedSize !== undefined)
      throw new InvalidArgumentError('a reserve lies inside the volume, in runs, or behind it: not both');
    placeInside(wholeBlocks(runs, Number.MAX_SAFE_INTEGER));
  } else if (protectedSize !== undefined) {
    checkWhole('protected size', protectedSize);
    if (protectedSize === 0) throw new InvalidArgumentError('a volume has at least one byte');
  } else {
    if (reserve !== undefined) checkWhole('reserve', reserve);
    if (reserve === undefined || reserve < RESERVE_MIN)
      throw new InvalidArgumentError(
        `an in-volume store needs a reserve of at least ${RESERVE_MIN} bytes, got ${reserve ?? 'none'}`,
      );
  }
}

/** Where the control blocks of a reserve in those blocks lie. @throws InvalidArgumentError if there is no place for them */
function placeInside(blocks: Extents): { controlOffset: ByteOffset; blocks: Extents } {
  const first = [...blocks].find(({ length }) => length >= FIXED_BLOCKS_INSIDE);
  if (blocks.has(0)) throw new InvalidArgumentError('the first block of the volume cannot hold its store');
  if (first === undefined || blocks.total < FIXED_BLOCKS_INSIDE + AREA_BLOCKS_MIN)
    throw new InvalidArgumentError(
      `runs of a store need ${FIXED_BLOCKS_INSIDE} whole blocks of 16 KiB in one run and ${FIXED_BLOCKS_INSIDE + AREA_BLOCKS_MIN} in all, these have ${blocks.total}`,
    );
  return { controlOffset: first.start * BLOCK_SIZE, blocks };
}

export class InVolumeStore implements Store {
  readonly layout = 'in-volume';
  readonly #options: InVolumeOptions;

  constructor(options: InVolumeOptions = {}) {
    this.#options = options;
  }

  /** Where the volume is to end, if the rest of the device becomes the reserve. */
  get endOfVolume(): ByteLength | undefined {
    return this.#options.protectedSize;
  }

  /** For whoever has to look at them before they are used. @throws InvalidArgumentError if they are no runs of the device */
  blocksInside(device: BlockDevice): Extents {
    return this.#insideOf(device)?.blocks ?? new Extents();
  }

  async initialize(device: BlockDevice, options: InitializeOptions): Promise<void> {
    const { environment, maximumSize, overWindows = false, incompatible = 0 } = options;
    checkReserve(this.#options);
    const start = new Uint8Array(START_BLOCK_SIZE);
    if (device.size < START_BLOCK_OFFSET + START_BLOCK_SIZE) {
      throw new UnsupportedError(`${device.name} is smaller than the 8 KiB boot area; use a directory store`);
    }
    await device.read(START_BLOCK_OFFSET, start);
    if (isStartBlock(start)) checkGivesWay(device, start, overWindows);
    const head = new Uint8Array(Math.min(SIGNATURE_BYTES, device.size));
    await device.read(0, head);
    const kind = identify(head);
    if (kind?.startBlockConflict !== undefined && this.#options.overFileSystem !== true) {
      throw new UnsupportedError(
        `the volume holds ${kind.name}, which does not leave the sector at 0x1E00 alone (${kind.startBlockConflict}); use a directory store (leave --in-volume out)`,
      );
    }
    const inside = this.#insideOf(device);
    const protectedSize = inside === undefined ? await this.#makeRoom(device) : device.size;
    const controlOffset = inside?.controlOffset ?? roundUp(protectedSize, BLOCK_SIZE);
    const volumeId = guidFrom(environment.random);
    const layout = 'in-volume';
    const created = newStart(environment, { volumeId, maximumSize, protectedSize, layout, incompatible });
    await device.write(sectorAfter(controlOffset), start);
    if (inside !== undefined)
      await writeReserveList(device, listAfter(controlOffset), created.extension.storeId, inside.blocks);
    await ControlFile.create(device, created, controlOffset);
  }

  /** The reserve inside the volume, if there is to be one. @throws InvalidArgumentError */
  #insideOf(device: BlockDevice): { controlOffset: ByteOffset; blocks: Extents } | undefined {
    const { runs } = this.#options;
    return runs === undefined ? undefined : placeInside(wholeBlocks(runs, device.size));
  }

  async #makeRoom(device: BlockDevice): Promise<ByteLength> {
    const { reserve = 0, protectedSize } = this.#options;
    if (protectedSize !== undefined) {
      if (roundUp(protectedSize, BLOCK_SIZE) + RESERVE_MIN > device.size) {
        throw new InvalidArgumentError(
          `a protected size of ${protectedSize} leaves less than ${RESERVE_MIN} bytes of ${device.size}`,
        );
      }
      return protectedSize;
    }
    if (!isResizable(device)) {
      throw new UnsupportedError(
        `${device.name} cannot be made longer; give the protected size, if there is room behind the volume`,
      );
    }
    const size = device.size;
    await device.resize(roundUp(size, BLOCK_SIZE) + roundUp(reserve, BLOCK_SIZE));
    return size;
  }

  async attach(device: BlockDevice, { writable }: AttachOptions): Promise<AttachedStore> {
    const start = new Uint8Array(START_BLOCK_SIZE);
    if (device.size >= START_BLOCK_OFFSET + START_BLOCK_SIZE) await device.read(START_BLOCK_OFFSET, start);
    if (!isStartBlock(start)) {
      throw new NotInitializedError(
        `${device.name} has no snapshot store; make one with: volsnap init ${device.name}`,
      );
    }
    const control = await ControlFile.open(device);
    const { layout, protectedSize } = control.start.extension;
    if (layout !== 'in-volume') throw new FormatError(`start block: layout ${layout} inside a volume`);
    const { firstControlBlock: controlOffset } = control.start;
    const isInside = controlOffset < protectedSize;
    if (!isInside && controlOffset !== roundUp(protectedSize, BLOCK_SIZE))
      throw new FormatError(`start block: control blocks at ${controlOffset}, behind ${protectedSize} bytes`);
    const fixed = isInside ? FIXED_BLOCKS_INSIDE : FIXED_BLOCKS;
    const areasOffset = controlOffset + fixed * BLOCK_SIZE;
    if (areasOffset > device.size) {
      throw new FormatError(
        `${device.name} has ${device.size} bytes; its store says that it needs more than ${areasOffset}. Was it cut off?`,
      );
    }
    const first = controlOffset / BLOCK_SIZE;
    const reserve = isInside
      ? await readReserveList(device, listAfter(controlOffset), control.start.extension.storeId)
      : new Extents([{ start: first, length: Math.floor(device.size / BLOCK_SIZE) - first }]);
    if (!reserve.contains(first, fixed) || reserve.has(0))
      throw new FormatError('the list of the reserve leaves out what the store begins with');
    const sectorOffset = sectorAfter(controlOffset);
    const hidden = isInside ? reserve : new Extents();
    const volume = new StartSectorDevice(device, protectedSize, sectorOffset, hidden);
    return new AttachedInVolume(device, control, volume, { reserve, fixed, isInside }, writable);
  }
}

/** The blocks of a store, by number on the device. */
interface Reserve {
  /** All of them; of one inside the volume they may become fewer. */
  readonly reserve: Extents;
  /** How many, from the first control block on, hold no diff areas. */
  readonly fixed: number;
  readonly isInside: boolean;
}

class AttachedInVolume implements AttachedStore {
  readonly layout = 'in-volume';
  readonly hidesStartBlock = true;
  readonly volume: BlockDevice;
  readonly inside: BlocksInside | undefined;
  readonly #device: BlockDevice;
  readonly budget: SpaceBudget;
  readonly #writable: boolean;
  /** Free blocks, by number on the device. */
  readonly #free: Extents;
  /** A diff area whose runs cannot be read may lie anywhere: then nothing can be handed out. */
  #unknownRuns = false;

  constructor(
    device: BlockDevice,
    readonly control: ControlFile,
    volume: BlockDevice,
    { reserve, fixed, isInside }: Reserve,
    writable: boolean,
  ) {
    this.#device = device;
    this.#writable = writable;
    this.volume = volume;
    this.budget = new SpaceBudget(() => control.start.maximumSize);
    const first = control.start.firstControlBlock / BLOCK_SIZE;
    this.#free = new Extents(reserve);
    this.#free.remove(first, fixed);
    if (!isInside) return;
    const { firstControlBlock, extension } = control.start;
    const listAt = listAfter(firstControlBlock);
    const leaving = new Leaving({ device, listAt, epoch: extension.storeId, reserve, free: this.#free });
    this.inside = {
      storeWithin: (offset, length) => {
        const [start, count] = [blockOf(offset), blocksIn(offset + length) - blockOf(offset)];
        if (length === 0 || !reserve.overlaps(start, count)) return undefined;
        return start < first + fixed && start + count > first ? 'needed' : 'diff-areas';
      },
      leave: async (offset, length) => {
        if (this.#unknownRuns)
          throw new ReadOnlyError(`where the diff areas of ${this.name} lie cannot be read`);
        await leaving.leave(blockOf(offset), blocksIn(offset + length));
      },
    };
  }

  get name(): string {
    return this.#device.name;
  }

  available(): ByteLength {
    return this.#unknownRuns ? 0 : Math.min(this.budget.available, this.#free.total * BLOCK_SIZE);
  }

  allocated(): ByteLength {
    return this.budget.taken;
  }

  async createArea(): Promise<AreaFile> {
    return this.#area(new Runs([]));
  }

  async openArea(item: DiffAreaItem, counted: ByteLength = 0): Promise<OpenedArea> {
    try {
      const list = await readLocationList(this.#device, item.locationOffset);
      for (const run of list.runs.list) this.#claim(run);
      this.budget.count(list.runs.size - counted);
      return { file: this.#area(list.runs), list };
    } catch (error) {
      this.#unknownRuns = true;
      throw error;
    }
  }

  #claim({ volumeOffset, length }: Piece): void {
    const start = volumeOffset / BLOCK_SIZE;
    const blocks = length / BLOCK_SIZE;
    if (!this.#free.contains(start, blocks)) {
      throw new FormatError(
        `location list: ${length} bytes at ${volumeOffset} belong to another diff area or to the volume`,
      );
    }
    this.#free.remove(start, blocks);
  }

  #area(runs: Runs): AreaFile {
    return {
      device: this.#device,
      runs,
      take: async (length) => this.#take(length),
      establish: () => this.#device.flush(),
      giveBack: async (pieces) => this.#giveBack(pieces),
      close: async () => undefined,
      remove: async () => this.#giveBack(runs.list),
    };
  }

  #take(length: ByteLength): Piece[] {
    const blocks = length / BLOCK_SIZE;
    if (this.#unknownRuns || blocks > this.#free.total) {
      throw new NoSpaceError(
        `the reserve of ${this.name} has ${this.available()} bytes free, ${length} are needed`,
      );
    }
    this.budget.take(length);
    const taken = this.#free.take(blocks) ?? [];
    return taken.map((extent) => ({
      volumeOffset: extent.start * BLOCK_SIZE,
      length: extent.length * BLOCK_SIZE,
    }));
  }

  #giveBack(pieces: readonly Piece[]): void {
    for (const { volumeOffset, length } of pieces) {
      this.#free.add(volumeOffset / BLOCK_SIZE, length / BLOCK_SIZE);
      this.budget.giveBack(length);
    }
  }

  async removeArea(): Promise<void> {} // There are no files.

  async orphans(): Promise<string[]> {
    return [];
  }

  async removeOrphans(): Promise<string[]> {
    if (this.#writable) await this.#device.flush();
    return [];
  }

  async close(): Promise<void> {
    await this.volume.close();
  }
}
