/**
 * The in-volume layout: control blocks and diff-area files lie on the device that holds the protected volume, in a
 * reserve behind the volume's own size. This is the layout that libvshadow and Windows' other readers understand.
 *
 *     0          0x1E00              protected size ↑16 KiB                                        device size
 *     │ volume … │ start block │ … volume │ control blocks (9) │ kept sector │ diff areas … free … │
 *
 * What is free is nowhere on disk: it is what no location list names.
 *
 * Shared state: the free extents. They change only between awaits, so no lock is needed.
 */
import { checkWhole } from '../arguments.js';
import type { BlockDevice, ResizableDevice } from '../device/block-device.js';
import {
  AlreadyInitializedError,
  FormatError,
  InvalidArgumentError,
  NoSpaceError,
  NotInitializedError,
  UnsupportedError,
} from '../errors.js';
import { identify, SIGNATURE_BYTES } from '../filesystem/signature.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { guidFrom } from '../format/guid.js';
import { isStartBlock } from '../format/start-block.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, roundUp } from '../units.js';
import { CONTROL_BLOCKS, ControlFile } from './control-file.js';
import { Extents } from './extents.js';
import { readLocationList } from './location-list.js';
import { newStart } from './new-start.js';
import { type Piece, Runs } from './runs.js';
import { SpaceBudget } from './space-budget.js';
import { StartSectorDevice } from './start-sector-device.js';
import type {
  AreaFile,
  AttachedStore,
  AttachOptions,
  InitializeOptions,
  OpenedArea,
  Store,
} from './store.js';

/** Bytes of the reserve that hold no diff areas: control blocks and the block with the kept sector. */
const FIXED_SIZE = (CONTROL_BLOCKS + 1) * BLOCK_SIZE;
/** The least that makes sense: one snapshot with a few blocks. */
export const RESERVE_MIN = FIXED_SIZE + 64 * BLOCK_SIZE;

/** Where the parts of a reserve lie, as offsets of the device. */
interface Reserve {
  readonly controlOffset: ByteOffset;
  readonly sectorOffset: ByteOffset;
  readonly areasOffset: ByteOffset;
}

const reserveAt = (protectedSize: ByteLength): Reserve => {
  const controlOffset = roundUp(protectedSize, BLOCK_SIZE);
  const sectorOffset = controlOffset + CONTROL_BLOCKS * BLOCK_SIZE;
  return { controlOffset, sectorOffset, areasOffset: sectorOffset + BLOCK_SIZE };
};

export interface InVolumeOptions {
  /** `initialize` only: bytes to reserve. The device is made longer by as much if it can be. */
  readonly reserve?: ByteLength;
  /**
   * `initialize` only: size of the volume, for a device that already has room behind it.
   * Everything from here to the end of the device becomes the reserve.
   */
  readonly protectedSize?: ByteLength;
  /**
   * `initialize` only: go on even if the file system needs the sector at 0x1E00. The volume is then whole only when it
   * is read through volsnap; its snapshots are whole for every reader.
   */
  readonly overFileSystem?: boolean;
}

export class InVolumeStore implements Store {
  readonly layout = 'in-volume';
  readonly #options: InVolumeOptions;

  constructor(options: InVolumeOptions = {}) {
    this.#options = options;
  }

  async initialize(device: BlockDevice, { environment, maximumSize }: InitializeOptions): Promise<void> {
    const start = new Uint8Array(START_BLOCK_SIZE);
    if (device.size < START_BLOCK_OFFSET + START_BLOCK_SIZE) {
      throw new UnsupportedError(`${device.name} is smaller than the 8 KiB boot area; use a directory store`);
    }
    await device.read(START_BLOCK_OFFSET, start);
    if (isStartBlock(start))
      throw new AlreadyInitializedError(`${device.name} has a snapshot store inside already`);
    const head = new Uint8Array(Math.min(SIGNATURE_BYTES, device.size));
    await device.read(0, head);
    const kind = identify(head);
    if (kind?.startBlockConflict !== undefined && this.#options.overFileSystem !== true) {
      throw new UnsupportedError(
        `the volume holds ${kind.name}, which does not leave the sector at 0x1E00 alone (${kind.startBlockConflict}); use a directory store (leave --in-volume out)`,
      );
    }
    const protectedSize = await this.#makeRoom(device);
    const { controlOffset, sectorOffset } = reserveAt(protectedSize);
    await device.write(sectorOffset, start);
    await ControlFile.create(
      device,
      newStart(environment, {
        volumeId: guidFrom(environment.random),
        maximumSize,
        protectedSize,
        layout: 'in-volume',
      }),
      controlOffset,
    );
  }

  async #makeRoom(device: BlockDevice): Promise<ByteLength> {
    const { reserve, protectedSize } = this.#options;
    if (reserve !== undefined) checkWhole('reserve', reserve);
    if (protectedSize !== undefined) checkWhole('protected size', protectedSize);
    if (protectedSize !== undefined) {
      if (protectedSize < 1 || roundUp(protectedSize, BLOCK_SIZE) + RESERVE_MIN > device.size) {
        throw new InvalidArgumentError(
          `a protected size of ${protectedSize} leaves less than ${RESERVE_MIN} bytes of ${device.size}`,
        );
      }
      return protectedSize;
    }
    if (reserve === undefined || reserve < RESERVE_MIN) {
      throw new InvalidArgumentError(
        `an in-volume store needs a reserve of at least ${RESERVE_MIN} bytes, got ${reserve ?? 'none'}`,
      );
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
    const reserve = reserveAt(protectedSize);
    if (reserve.areasOffset > device.size) {
      throw new FormatError(
        `${device.name} has ${device.size} bytes; its store says that it needs more than ${reserve.areasOffset}. Was it cut off?`,
      );
    }
    return new AttachedInVolume(device, control, reserve, protectedSize, writable);
  }
}

const isResizable = (device: BlockDevice): device is ResizableDevice => 'resize' in device;

class AttachedInVolume implements AttachedStore {
  readonly layout = 'in-volume';
  readonly hidesStartBlock = true;
  readonly volume: BlockDevice;
  readonly #device: BlockDevice;
  readonly #reserve: Reserve;
  readonly #budget: SpaceBudget;
  readonly #writable: boolean;
  /** Free blocks, by number on the device. */
  readonly #free: Extents;
  /** A diff area whose runs cannot be read may lie anywhere: then nothing can be handed out. */
  #unknownRuns = false;

  constructor(
    device: BlockDevice,
    readonly control: ControlFile,
    reserve: Reserve,
    protectedSize: ByteLength,
    writable: boolean,
  ) {
    this.#device = device;
    this.#reserve = reserve;
    this.#writable = writable;
    this.volume = new StartSectorDevice(device, protectedSize, reserve.sectorOffset);
    this.#budget = new SpaceBudget(() => control.start.maximumSize);
    const first = reserve.areasOffset / BLOCK_SIZE;
    this.#free = new Extents([{ start: first, length: Math.floor(device.size / BLOCK_SIZE) - first }]);
  }

  get name(): string {
    return this.#device.name;
  }

  available(): ByteLength {
    return this.#unknownRuns ? 0 : Math.min(this.#budget.available, this.#free.total * BLOCK_SIZE);
  }

  allocated(): ByteLength {
    return this.#budget.taken;
  }

  async createArea(): Promise<AreaFile> {
    return this.#area(new Runs([]));
  }

  async openArea(item: DiffAreaItem): Promise<OpenedArea> {
    try {
      const list = await readLocationList(this.#device, item.locationOffset);
      for (const run of list.runs.list) this.#claim(run);
      this.#budget.count(list.runs.size);
      return { file: this.#area(list.runs), list };
    } catch (error) {
      this.#unknownRuns = true;
      throw error;
    }
  }

  #claim({ volumeOffset, length }: Piece): void {
    const start = volumeOffset / BLOCK_SIZE;
    const blocks = length / BLOCK_SIZE;
    if (volumeOffset < this.#reserve.areasOffset || !this.#free.contains(start, blocks)) {
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
    this.#budget.take(length);
    const taken = this.#free.take(blocks) ?? [];
    return taken.map((extent) => ({
      volumeOffset: extent.start * BLOCK_SIZE,
      length: extent.length * BLOCK_SIZE,
    }));
  }

  #giveBack(pieces: readonly Piece[]): void {
    for (const { volumeOffset, length } of pieces) {
      this.#free.add(volumeOffset / BLOCK_SIZE, length / BLOCK_SIZE);
      this.#budget.giveBack(length);
    }
  }

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
