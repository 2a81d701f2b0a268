/** The devices of one simulated run, and how the engine is opened on them. */

import { viewOf } from '../../src/format/binary.js';
import { BlockType, FORMAT_SIGNATURE, ITEM_SIZE } from '../../src/format/constants.js';
import { EntryFlag } from '../../src/format/table-block.js';
import {
  AlreadyInitializedError,
  DirectoryStore,
  type Environment,
  InVolumeStore,
  type Store,
  Volume,
  type VolumeOptions,
} from '../../src/index.js';
import {
  type OperationLabel,
  type SchedulerOptions,
  SeededRandom,
  type SimulatedDisk,
  SimulatedWorld,
  stampSectors,
} from '../../src/testing/index.js';
import { BLOCK_SIZE, roundUp, SECTOR_SIZE } from '../../src/units.js';
import { SimulatedApart } from './apart.js';
import type { CrashScope } from './crash-states.js';
import { type LateDisk, withoutAreas } from './late.js';
import type { Cycle, Plan, Range, Writing } from './plan.js';
import type { WriteAim } from './plan-aims.js';
import { firstRun } from './plan-inside.js';
import { ReadBuffers } from './read-buffers.js';

const START_SECTOR = 0x1e00;
/** Blocks between the volume and the block in which an in-volume store keeps the sector of its start block. */
const CONTROL_BLOCKS = 9;

/** One of the volumes of a world that has several. */
export interface Member {
  readonly world: SimulatedWorld;
  readonly environment: () => Environment;
  readonly name: string;
}

export interface RunWorldOptions extends SchedulerOptions {
  /** Its disks are empty: another world is to be restored into it. */
  readonly isEmpty?: boolean;
}

const ORDERED: Writing = { mode: 'ordered', limit: 0 };

export class RunWorld {
  readonly world: SimulatedWorld;
  readonly #apart: SimulatedApart;
  readonly plan: Plan;
  /** How it is opened the next time. */
  writing: Writing = ORDERED;
  /** The diff areas of a directory store, while their device is not there; `undefined`: it is, and nobody waits. */
  late: LateDisk | undefined;
  readonly #member: Member | undefined;
  #aim: (Omit<WriteAim, 'writes'> & { writes: number; readonly generation: number }) | undefined;
  readonly volumeName: string;
  readonly #storeName: string;
  #current: { readonly generation: number; readonly environment: Environment } | undefined;

  constructor(plan: Plan, { isEmpty = false, ...options }: RunWorldOptions = {}, member?: Member) {
    this.plan = plan;
    this.#apart = new SimulatedApart(new SeededRandom(`apart ${plan.seed}`));
    const observe = (event: string, label: OperationLabel) => this.#observe(event, label);
    this.world =
      member?.world ?? new SimulatedWorld(plan.seed, { stragglers: plan.stragglers, observe, ...options });
    this.#member = member;
    this.volumeName = member?.name ?? 'volume';
    this.#storeName = member === undefined ? 'store' : `${member.name}.store`;
    const { noise, atOnce } = plan;
    const room = noise ? roundUp(plan.volumeSize, BLOCK_SIZE) + plan.reserve : plan.volumeSize;
    const areas = roundUp(plan.volumeSize, BLOCK_SIZE) + (CONTROL_BLOCKS + 1) * BLOCK_SIZE;
    const strictOverlap = this.#inside && plan.inside === undefined && areas;
    const content = isEmpty ? {} : { size: room, noise };
    this.world.addDisk(this.volumeName, { ...content, strictOverlap, atOnce });
    if (!this.#inside) {
      const capacity = plan.hostSpace === 0 ? Infinity : plan.hostSpace;
      this.world.addDirectory(this.#storeName, { strictOverlap: true, capacity, atOnce });
    }
  }

  /** Another one like it, whose disks are still to be restored. @param seed of all that happens there */
  branch(seed: string): RunWorld {
    const branch = new RunWorld({ ...this.plan, seed }, { isEmpty: true });
    branch.writing = this.writing;
    return branch;
  }

  /** What its device holds before the store is made. */
  #filled(): Uint8Array {
    const { volumeSize } = this.plan;
    const bytes = new Uint8Array(volumeSize);
    // The second half begins as zeros.
    stampSectors(bytes.subarray(0, Math.floor(volumeSize / 2 / SECTOR_SIZE) * SECTOR_SIZE), 0, 0);
    return bytes;
  }

  /** What the volume holds when the store is made: where that lies inside it, zeros. */
  get initial(): Uint8Array {
    const bytes = this.#filled();
    for (const { offset, length } of this.plan.inside?.runs ?? []) bytes.fill(0, offset, offset + length);
    return bytes;
  }

  /** One for each generation: asking the world again would give the same random numbers again. */
  #environment(): Environment {
    if (this.#member !== undefined) return this.#member.environment();
    const { generation } = this.world.scheduler;
    if (this.#current?.generation !== generation)
      this.#current = { generation, environment: this.world.environment() };
    return this.#current.environment;
  }

  get #inside(): boolean {
    return this.plan.layout === 'in-volume';
  }

  /** @param late where its diff areas may not be there */
  store(late?: LateDisk): Store {
    if (!this.#inside) {
      const folder = this.world.folder(this.#storeName);
      return new DirectoryStore(late === undefined ? folder : withoutAreas(folder, late));
    }
    const { noise, volumeSize, reserve, inside } = this.plan;
    if (inside !== undefined) return new InVolumeStore({ runs: inside.runs });
    return new InVolumeStore(noise ? { protectedSize: volumeSize } : { reserve });
  }

  async #fill(): Promise<void> {
    const device = this.world.device(this.volumeName);
    await device.write(0, this.#filled());
    await device.flush();
    await device.close();
  }

  async #makeStore(): Promise<void> {
    const device = this.world.device(this.volumeName);
    await Volume.initialize(device, {
      store: this.store(),
      maximumSize: this.plan.maximumSize,
      environment: this.#environment(),
    });
    await device.close();
  }

  /** Makes the store; if that is cut off, it is made again, or is there already. */
  async initialize(): Promise<void> {
    const { world, plan } = this;
    await world.run(() => this.#fill());
    let isMade = false;
    for (const steps of plan.crashesWhileInitializing) {
      isMade ||= await this.#makeIfAbsent(steps);
      world.crash('power-cut');
    }
    if (!isMade) await this.#makeIfAbsent(Infinity);
  }

  /** @returns whether it is there for certain */
  async #makeIfAbsent(stepsMax: number): Promise<boolean> {
    try {
      return (await this.world.runSteps(() => this.#makeStore(), stepsMax)).finished;
    } catch (error) {
      if (error instanceof AlreadyInitializedError && this.plan.crashesWhileInitializing.length > 0)
        return true;
      throw error;
    }
  }

  open(
    onVolumeChanged: 'refuse' | 'keep',
    onDamaged: 'refuse' | 'drop' = 'refuse',
    onUndecidedSet: NonNullable<VolumeOptions['onUndecidedSet']> = 'pending',
  ): Promise<Volume> {
    return Volume.open(this.world.device(this.volumeName), {
      store: this.store(this.late),
      environment: this.#environment(),
      growth: this.plan.growth,
      memoryLimit: this.plan.memoryLimit,
      apart: this.#apart,
      writeMode: this.writing.mode,
      writeBackLimit: this.writing.limit,
      onVolumeChanged,
      onDamaged,
      onUndecidedSet,
      onProtectedWrite: this.plan.inside?.policy ?? 'reject',
      ...(this.late === undefined ? {} : { lateAreas: this.late.options }),
    });
  }

  /** What a crash concerns. */
  get crashScope(): CrashScope {
    const { world, plan } = this;
    const directory = this.#inside ? undefined : world.directory(this.#storeName);
    const behind = plan.inside === undefined ? plan.volumeSize : 0;
    const disks = [world.disk(this.volumeName), ...(directory?.allFiles ?? [])];
    return { world, directory, storeOffset: this.#inside ? behind : Infinity, disks };
  }

  /** Does what runs hold acknowledged writes in its own memory? */
  get isBuffered(): boolean {
    return this.writing.mode === 'writeback';
  }

  openReadOnly(): Promise<Volume> {
    const options = { store: this.store(), environment: this.#environment() };
    return Volume.open(this.world.device(this.volumeName, { writable: false }), options);
  }

  /** The volume as its users see it, past the engine: for after a crash. */
  #peekVolume(buffers: ReadBuffers): Uint8Array {
    const disk = this.world.disk(this.volumeName);
    const bytes = buffers.take(this.#inside ? this.plan.volumeSize : disk.size);
    disk.content.read(0, bytes);
    if (!this.#inside) return bytes;
    if (bytes.byteLength >= START_SECTOR + SECTOR_SIZE) {
      const kept = roundUp(this.plan.volumeSize, BLOCK_SIZE) + CONTROL_BLOCKS * BLOCK_SIZE;
      bytes.set(disk.peek(kept, SECTOR_SIZE), START_SECTOR);
    }
    return bytes;
  }

  /**
   * The same, or through the engine, which writes nothing: a volume that may be on its way back to a snapshot is not what
   * its device holds; nor is one that holds its own store.
   * @returns one of the buffers, to be given back
   */
  async findVolume(mayRevert: boolean, buffers = new ReadBuffers()): Promise<Uint8Array> {
    if (!mayRevert && this.plan.inside === undefined) return this.#peekVolume(buffers);
    return this.world.run(async () => {
      const volume = await this.openReadOnly();
      const bytes = await volume.read(0, buffers.take(volume.size));
      await volume.close();
      return bytes;
    });
  }

  /** Lets devices fail, until the faults are cleared. */
  drawFaults(cycle: Pick<Cycle, 'faultRate' | 'controlFaults' | 'volumeFaults'>): void {
    const { faultRate, controlFaults, volumeFaults = false } = cycle;
    const { faults } = this.world;
    if (volumeFaults)
      faults.add({ operation: 'flush', effect: 'EIO', chance: 0.5, times: 1, target: this.volumeName });
    if (controlFaults) {
      const where = this.#control;
      faults.add({ operation: ['write', 'flush'], effect: 'EIO', chance: 0.2, times: 4, ...where });
    }
    faults.draw(faultRate);
  }

  /** Where the control blocks lie. */
  get #control(): { readonly target: string; readonly from?: number; readonly to?: number } {
    if (!this.#inside) return { target: `${this.#storeName}/{${FORMAT_SIGNATURE}}` };
    const { inside, volumeSize } = this.plan;
    const from = inside === undefined ? roundUp(volumeSize, BLOCK_SIZE) : firstRun(inside).offset;
    return { target: this.volumeName, from, to: from + CONTROL_BLOCKS * BLOCK_SIZE };
  }

  /** Does an operation there touch the control blocks? */
  isControl(name: string, offset: number): boolean {
    const { target, from = 0, to = Infinity } = this.#control;
    return name === target && offset >= from && offset < to;
  }

  /** The crash comes so many steps after so many writes of that kind; `undefined`: it does not. */
  aimAtWrite(aim: WriteAim | undefined): void {
    this.#aim = aim && { ...aim, generation: this.world.scheduler.generation };
  }

  #observe(event: string, label: OperationLabel): void {
    if (event !== 'effect' || label.kind !== 'write') return;
    if (this.#aim?.generation !== this.world.scheduler.generation) return;
    const isMeant =
      this.#aim.of === 'control' ? this.isControl(label.target, label.offset) : this.#isNextTableBlock(label);
    if (!isMeant || --this.#aim.writes > 0) return;
    this.world.scheduler.stopWithin(this.#aim.steps);
    this.#aim = undefined;
  }

  /** Was that the first write of a table block that another one links to? The first block of a table lies in slot 1. */
  #isNextTableBlock({ target, offset, length }: OperationLabel): boolean {
    if (length !== BLOCK_SIZE || offset % BLOCK_SIZE !== 0) return false;
    if (!this.#inside && target === this.volumeName) return false;
    const isThere = ({ name }: SimulatedDisk) => name === target;
    const disk = this.#inside
      ? this.world.disk(target)
      : this.world.directory(this.#storeName).allFiles.find(isThere);
    if (disk === undefined) return false;
    const head = disk.peek(offset, FILE_OFFSET_END);
    return typeOf(head) === BlockType.table && viewOf(head).getUint32(TYPE_END, true) > BLOCK_SIZE;
  }

  /** What the host has for the store from now on, in bytes; 0: as much as is wanted. Not less than is there. */
  setHostSpace(bytes: number): void {
    if (this.#inside) return;
    const directory = this.world.directory('store');
    directory.capacity = bytes === 0 ? Infinity : Math.max(bytes, directory.usedBytes);
  }

  /** How many files there are in a directory store. */
  get fileCount(): number | undefined {
    return this.#inside ? undefined : this.world.directory(this.#storeName).fileNames.length;
  }

  /**
   * Rot: one bit flips somewhere in what belongs to the store alone: anywhere, in metadata, or in a table.
   * @returns flips it back, unless something else was written there meanwhile; tells whether it was as it was
   */
  rot(): () => boolean {
    const { disk, blocks } = this.#rotting();
    const { offset, bits } = this.#pickByte(disk, blocks);
    const bit = this.world.random.pick(bits);
    disk.rot(offset, bit);
    const [rotten] = disk.peek(offset, 1);
    return () => {
      const isThere = offset < disk.size && disk.peek(offset, 1)[0] === rotten;
      if (isThere) disk.rot(offset, bit);
      return isThere;
    };
  }

  #pickByte(disk: SimulatedDisk, blocks: readonly number[]): { offset: number; bits: readonly number[] } {
    const { random } = this.world;
    const metadata = blocks.filter((offset) => typeOf(disk.peek(offset, TYPE_END)) !== undefined);
    const ofType = (type: number) =>
      metadata.filter((offset) => typeOf(disk.peek(offset, TYPE_END)) === type);
    const [tables, control] = [ofType(BlockType.table), ofType(BlockType.control)];
    const kind = random.pick([blocks, metadata, tables, tables, control]);
    if (kind === blocks || kind.length === 0)
      return { offset: random.pick(blocks) + random.below(BLOCK_SIZE), bits: ANY_BIT };
    // Most of a metadata block is zeros; what is not, or is next to that, means more.
    const block = random.pick(kind);
    const bytes = disk.peek(block, BLOCK_SIZE);
    const isItem = kind === control && random.chance(0.5);
    const reach = isItem ? ITEM_SIZE : random.pick([1, TABLE_ENTRY_BYTES]);
    const parts = numbersTo(BLOCK_SIZE / reach).map((part) => part * reach);
    const used = parts.filter((at) => bytes.subarray(at, at + reach).some((byte) => byte !== 0));
    const part = block + random.pick(used);
    // What is done with a snapshot.
    if (isItem) return { offset: part + STATE_AT + random.below(2), bits: ANY_BIT };
    // What an entry is: a copy, or none.
    if (kind === tables && reach === TABLE_ENTRY_BYTES && random.chance(0.4))
      return { offset: part + FLAGS_AT, bits: random.chance(0.5) ? [UNUSED_BIT] : ANY_BIT };
    return { offset: part + random.below(reach), bits: ANY_BIT };
  }

  /** A disk, and where on it blocks of the store lie. */
  #rotting(): { disk: SimulatedDisk; blocks: readonly number[] } {
    const { random } = this.world;
    if (!this.#inside) {
      const directory = this.world.directory(this.#storeName);
      const disk = directory.file(random.pick(directory.fileNames.sort()));
      return { disk, blocks: blocksOf({ offset: 0, length: disk.size }) };
    }
    const disk = this.world.disk(this.volumeName);
    const { inside, volumeSize } = this.plan;
    const behind = roundUp(volumeSize, BLOCK_SIZE);
    const runs = inside?.runs ?? [{ offset: behind, length: disk.size - behind }];
    const control = inside === undefined ? behind : firstRun(inside).offset;
    // The block of the kept sector, right behind the control blocks, belongs to the volume.
    const areas = control + (CONTROL_BLOCKS + 1) * BLOCK_SIZE;
    const isControl = (at: number) => at >= control && at < areas;
    const mayBeControl = random.chance(0.2);
    const blocks = runs.flatMap(blocksOf).filter((at) => !isControl(at) || mayBeControl);
    return { disk, blocks: blocks.filter((at) => at !== areas - BLOCK_SIZE) };
  }
}

/** Where the whole blocks of a range begin. */
const blocksOf = ({ offset, length }: Range): number[] =>
  numbersTo(Math.floor(length / BLOCK_SIZE)).map((block) => offset + block * BLOCK_SIZE);

const TABLE_ENTRY_BYTES = 32;
/** Of an entry. */
const FLAGS_AT = 24;
/** Of an item of a control block. */
const STATE_AT = 92;
/** Of the flags: the entry counts for nothing. */
const UNUSED_BIT = Math.log2(EntryFlag.unused);
const ANY_BIT = [0, 1, 2, 3, 4, 5, 6, 7];
const numbersTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
/** Metadata blocks begin with a GUID, of which this is the first word, and a version; then their type. */
const SIGNATURE = 0x3808876b;
const TYPE_AT = 20;
const TYPE_END = TYPE_AT + 4;
/** Behind the type lies the offset of the block in its file. */
const FILE_OFFSET_END = TYPE_END + 8;

function typeOf(head: Uint8Array): number | undefined {
  const view = viewOf(head);
  return view.getUint32(0, true) === SIGNATURE ? view.getUint32(TYPE_AT, true) : undefined;
}
