/**
 * The directory layout: a folder beside the volume with the control file and one file for each snapshot.
 *
 * Each file is an address space of its own: volume offset = file offset. The first 16 KiB of the control file stand in
 * for the boot area of a volume, so that the start block is where readers of the format look for it.
 */
import type { BlockDevice, ResizableDevice } from '../device/block-device.js';
import type { Folder } from '../device/folder.js';
import { HostFolder } from '../device/host-folder.js';
import { hostLack } from '../device/system-error.js';
import {
  AlreadyInitializedError,
  FormatError,
  isOutOfSpace,
  NoSpaceError,
  NotFoundError,
  NotInitializedError,
} from '../errors.js';
import { isZero } from '../format/binary.js';
import { FORMAT_SIGNATURE, START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { type Guid, guidFrom } from '../format/guid.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';
import { CONTROL_BLOCKS, ControlFile } from './control-file.js';
import { readLocationList } from './location-list.js';
import { newStart } from './new-start.js';
import { type Piece, Runs } from './runs.js';
import { SpaceBudget } from './space-budget.js';
import type {
  AreaFile,
  AttachedStore,
  AttachOptions,
  InitializeOptions,
  OpenedArea,
  Store,
} from './store.js';

const CONTROL_FILE_NAME = `{${FORMAT_SIGNATURE}}`;
const CONTROL_FILE_SIZE = (1 + CONTROL_BLOCKS) * BLOCK_SIZE;
const areaFileName = (storeId: Guid): string => `{${storeId}}{${FORMAT_SIGNATURE}}`;
const isAreaFileName = (name: string): boolean => name.endsWith(`}${CONTROL_FILE_NAME}`);

export class DirectoryStore implements Store {
  readonly layout = 'directory';
  readonly #place: string | Folder;

  /** @param place path of the folder, by custom the volume's path with `.volsnap` after it; or a folder of another kind */
  constructor(place: string | Folder) {
    this.#place = place;
  }

  async initialize(device: BlockDevice, { environment, maximumSize }: InitializeOptions): Promise<void> {
    const folder =
      typeof this.#place === 'string'
        ? await HostFolder.create(this.#place, 'path' in device ? { modeLike: device.name } : {})
        : this.#place;
    await removeUnfinished(folder);
    const file = await folder.create(CONTROL_FILE_NAME);
    try {
      await file.resize(CONTROL_FILE_SIZE);
      const start = newStart(environment, {
        volumeId: guidFrom(environment.random),
        maximumSize,
        protectedSize: device.size,
        layout: 'directory',
      });
      await ControlFile.create(file, start, BLOCK_SIZE);
    } finally {
      await file.close();
    }
    await folder.sync();
  }

  async attach(device: BlockDevice, { writable }: AttachOptions): Promise<AttachedStore> {
    const folder = await this.#openFolder();
    const file = await openControlFile(folder, writable);
    try {
      if (file.size < START_BLOCK_OFFSET + START_BLOCK_SIZE)
        throw new FormatError(
          `${file.name} was cut off: it has ${file.size} bytes, too few for a start block`,
        );
      return new AttachedDirectory(folder, file, await ControlFile.open(file), device, writable);
    } catch (error) {
      await file.close();
      if (error instanceof FormatError && (await contentOf(folder)) === 'unfinished')
        throw new NotInitializedError(
          `no snapshot store in ${folder.name}, only what was left when making one was interrupted; make it with: volsnap init VOLUME --store ${folder.name}`,
          { cause: error },
        );
      throw error;
    }
  }

  /** Is there a store at all? What an interrupted `initialize` has left is none. */
  async exists(): Promise<boolean> {
    try {
      return (await contentOf(await this.#openFolder())) === 'store';
    } catch (error) {
      if (error instanceof NotInitializedError) return false;
      throw error;
    }
  }

  async #openFolder(): Promise<Folder> {
    if (typeof this.#place !== 'string') return this.#place;
    try {
      return await HostFolder.open(this.#place);
    } catch (error) {
      throw asNotInitialized(error, this.#place);
    }
  }
}

/**
 * What a folder holds. An interrupted `initialize` leaves a control file that has nothing yet, or no start block, which is written last; and no
 * diff area. Anything else is a store, damaged or not.
 */
async function contentOf(folder: Folder): Promise<'nothing' | 'unfinished' | 'store'> {
  const names = await folder.list();
  if (!names.includes(CONTROL_FILE_NAME)) return 'nothing';
  if (names.some(isAreaFileName)) return 'store';
  const file = await folder.open(CONTROL_FILE_NAME, { writable: false });
  try {
    if (file.size === 0) return 'unfinished';
    if (file.size < CONTROL_FILE_SIZE) return 'store';
    const start = new Uint8Array(START_BLOCK_SIZE);
    await file.read(START_BLOCK_OFFSET, start);
    return isZero(start) ? 'unfinished' : 'store';
  } finally {
    await file.close();
  }
}

async function removeUnfinished(folder: Folder): Promise<void> {
  const content = await contentOf(folder);
  if (content === 'store')
    throw new AlreadyInitializedError(
      `${folder.name} holds a store already; delete that folder to start anew`,
    );
  if (content === 'unfinished') await folder.remove(CONTROL_FILE_NAME);
}

async function openControlFile(folder: Folder, writable: boolean): Promise<ResizableDevice> {
  try {
    // One engine a store, whatever device it is opened with.
    return await folder.open(CONTROL_FILE_NAME, { writable, lock: true });
  } catch (error) {
    throw asNotInitialized(error, folder.name);
  }
}

function asNotInitialized(error: unknown, place: string): unknown {
  if (!(error instanceof NotFoundError)) return error;
  return new NotInitializedError(
    `no snapshot store in ${place}; make one with: volsnap init VOLUME --store ${place}`,
    {
      cause: error,
    },
  );
}

class AttachedDirectory implements AttachedStore {
  readonly layout = 'directory';
  readonly hidesStartBlock = false;
  readonly budget: SpaceBudget;

  constructor(
    readonly folder: Folder,
    readonly controlDevice: ResizableDevice,
    readonly control: ControlFile,
    readonly volume: BlockDevice,
    readonly writable: boolean,
  ) {
    this.budget = new SpaceBudget(() => control.start.maximumSize);
  }

  get name(): string {
    return this.folder.name;
  }

  available(): ByteLength {
    return this.budget.available;
  }

  allocated(): ByteLength {
    return this.budget.taken;
  }

  async createArea(storeId: Guid): Promise<AreaFile> {
    const device = await this.folder.create(areaFileName(storeId));
    return new DirectoryArea(this.folder, storeId, device, new Runs([]), this.budget);
  }

  async openArea(item: DiffAreaItem, counted: ByteLength = 0): Promise<OpenedArea> {
    const device = await this.folder.open(areaFileName(item.storeId), { writable: this.writable });
    try {
      const list = await readLocationList(device, item.locationOffset);
      this.budget.count(list.runs.size - counted);
      return { file: new DirectoryArea(this.folder, item.storeId, device, list.runs, this.budget), list };
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  async removeArea(storeId: Guid): Promise<void> {
    try {
      await this.folder.remove(areaFileName(storeId));
    } catch (error) {
      if (error instanceof NotFoundError) return;
      throw error;
    }
    await this.folder.sync();
  }

  async orphans(): Promise<string[]> {
    const wanted = new Set(this.control.entries.map((entry) => areaFileName(entry.snapshot.storeId)));
    const names = await this.folder.list();
    return names.filter((name) => isAreaFileName(name) && !wanted.has(name));
  }

  async removeOrphans(): Promise<string[]> {
    const orphans = await this.orphans();
    for (const name of orphans) await this.folder.remove(name);
    // Also when there was none: a removal by a process that was killed may not be durable yet.
    await this.folder.sync();
    return orphans;
  }

  async close(): Promise<void> {
    await this.controlDevice.close();
  }
}

class DirectoryArea implements AreaFile {
  constructor(
    private readonly folder: Folder,
    private readonly storeId: Guid,
    readonly device: ResizableDevice,
    readonly runs: Runs,
    private readonly budget: SpaceBudget,
  ) {}

  async take(length: ByteLength): Promise<Piece[]> {
    this.budget.take(length);
    const volumeOffset = this.runs.size;
    try {
      await this.device.resize(volumeOffset + length);
    } catch (error) {
      this.budget.giveBack(length);
      if (!isOutOfSpace(error)) throw error;
      throw new NoSpaceError(hostLack(this.folder.name, error), { cause: error });
    }
    return [{ volumeOffset, length }];
  }

  async establish(): Promise<void> {
    // The name, too, has to outlast a power cut before an item of the control file relies on it. Together they wait for the disk once.
    await Promise.all([this.device.flush(), this.folder.sync()]);
  }

  async giveBack(pieces: readonly Piece[]): Promise<void> {
    for (const { length } of pieces) this.budget.giveBack(length);
    await this.device.resize(this.runs.size);
  }

  async close(): Promise<void> {
    await this.device.close();
  }

  async remove(): Promise<void> {
    await this.device.close();
    await this.folder.remove(areaFileName(this.storeId));
    await this.folder.sync();
    this.budget.giveBack(this.runs.size);
  }
}
