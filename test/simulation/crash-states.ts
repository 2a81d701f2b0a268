/**
 * All that a crash can leave: the changes not flushed at one moment, taken apart into units that are kept or lost.
 *
 * A write of metadata counts sector by sector, leaving out sectors that hold the same bytes anyway; a write of data, a
 * new size, a new or removed name counts as a whole. Up to a number of units every subset is a state. Beyond it: all
 * subsets that lose or keep at most two units, all that keep the first or the last so many, then a seeded sample. To either
 * come writes of data that are torn in the middle.
 */
import { crc32 } from 'node:zlib';
import type {
  Change,
  CrashModel,
  SectorChoice,
  SimulatedDisk,
  SimulatedWorld,
} from '../../src/testing/index.js';
import {
  type NameChange,
  SeededRandom,
  type SimulatedDirectory,
  sectorsOf,
} from '../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../src/units.js';

/** The parts of the world that a crash concerns. */
export interface CrashScope {
  readonly world: SimulatedWorld;
  readonly disks: readonly SimulatedDisk[];
  /** Where the store begins on the first of the disks, which holds the volume; the others are all store. */
  readonly storeOffset: number;
  readonly directory: SimulatedDirectory | undefined;
}

/** Something that a crash keeps or loses as one. */
interface Unit {
  /** Which disk, and which of its changes not flushed; `undefined`: a change of a name. */
  readonly disk: number | undefined;
  readonly change: number;
  /** Sector of the disk; `undefined`: the whole change. */
  readonly sector: number | undefined;
  /** Tells it from all others at any moment of the same history. */
  readonly identity: string;
}

/** One state: what is kept, and which change, if any, is torn. */
export interface CrashState {
  readonly identity: string;
  readonly isKept: readonly boolean[];
  readonly torn: number | undefined;
}

export class CrashMoment {
  readonly model: CrashModel;
  readonly units: readonly Unit[];
  /** Changes of data, by unit, that can be torn. */
  readonly #tearable: readonly number[];

  constructor(scope: CrashScope, model: CrashModel) {
    this.model = model;
    const units: Unit[] = [];
    for (const [disk, { content, name }] of scope.disks.entries()) {
      for (const [change, entry] of content.unflushed().entries()) {
        if (model === 'kill' && entry.order !== 0) continue;
        const storeOffset = disk === 0 ? scope.storeOffset : 0;
        const place = { disk, change, name: shortened(name), storeOffset };
        units.push(...unitsOf(content, entry, place, model));
      }
    }
    for (const [change, entry] of (scope.directory?.unsynced() ?? []).entries()) {
      if (model === 'kill' && entry.hasEffect) continue;
      const identity = `${entry.file === undefined ? 'remove' : 'create'} ${shortened(entry.name)}`;
      units.push({ disk: undefined, change, sector: undefined, identity });
    }
    this.units = units;
    this.#tearable = units.flatMap(({ identity, sector }, index) =>
      sector === undefined && identity.startsWith('write') ? index : [],
    );
  }

  /**
   * What makes each of the states: of the thousands that there may be few are tried.
   * @param limit of states that are not systematic; @param seed for those
   */
  *states(limit: number, seed: string): Generator<() => CrashState> {
    const { length } = this.units;
    for (const kept of subsets(length, limit, new SeededRandom(seed)))
      yield () => this.#state(kept(), undefined);
    for (const torn of this.#tearable) {
      for (const others of [true, false]) {
        yield () => this.#state(new Array<boolean>(length).fill(others), torn);
      }
    }
  }

  /** One of those that are dangerous: all is kept, or lost, but for one unit, or for one write that is torn; or all, or nothing. */
  draw(random: SeededRandom): CrashState {
    const others = random.chance(0.5);
    const isKept = new Array<boolean>(this.units.length).fill(others);
    const isTorn = this.#tearable.length > 0 && random.chance(0.3);
    if (isTorn) return this.#state(isKept, random.pick(this.#tearable));
    if (isKept.length > 0 && random.chance(0.7)) isKept[random.below(isKept.length)] = !others;
    return this.#state(isKept, undefined);
  }

  #state(isKept: readonly boolean[], torn: number | undefined): CrashState {
    const kept = this.units.flatMap(({ identity }, index) => {
      if (index === torn) return `half of ${identity}`;
      return isKept[index] ? identity : [];
    });
    return { isKept, torn, identity: kept.join('\n') };
  }

  /** What is lost, in words. */
  describe({ isKept, torn }: CrashState): string {
    const lost = this.units.filter((_, index) => !isKept[index] && index !== torn);
    const half = torn === undefined ? [] : [`half of ${this.units[torn]?.identity}`];
    return `${lost.length} of ${this.units.length} lost: ${[...lost.map(({ identity }) => identity), ...half].join(', ') || 'nothing'}`;
  }

  /** Makes the crash of a world that is in the state in which this moment was taken. */
  crash({ world, disks, directory }: CrashScope, state: CrashState): void {
    const { model } = this;
    const choices = new Map<object, SectorChoice>();
    const lists = disks.map((disk) => disk.content.unflushed());
    const names = directory?.unsynced() ?? [];
    for (const [index, { disk, change, sector }] of this.units.entries()) {
      const object = disk === undefined ? names[change] : lists[disk]?.[change];
      if (object === undefined)
        throw new Error('the world is not in the state in which the moment was taken');
      const kept = state.isKept[index] ?? true;
      if (index === state.torn) choices.set(object, halfOf(object as Change));
      else if (sector === undefined) choices.set(object, () => kept);
      else {
        const before = choices.get(object) ?? (() => true);
        choices.set(object, (asked) => (asked === sector ? kept : before(asked)));
      }
    }
    const choose = (change: object): SectorChoice => choices.get(change) ?? (() => true);
    world.crashWith(
      model,
      (disk) => disk.crashWith(model, choose),
      (folder) =>
        folder.crashWith(
          model,
          (change: Readonly<NameChange>) => choose(change)(0),
          (file) => file.crashWith(model, choose),
        ),
    );
  }
}

/** File names are GUIDs, of which the beginning is enough to tell them apart. */
const shortened = (name: string): string => name.replace(/\{([0-9a-f]{8})[^{}]*\}(\{[^{}]*\})?/g, '$1');

interface Place {
  readonly disk: number;
  readonly change: number;
  readonly name: string;
  readonly storeOffset: number;
}

function unitsOf(
  content: SimulatedDisk['content'],
  entry: Readonly<Change>,
  { disk, change, name, storeOffset }: Place,
  model: CrashModel,
): Unit[] {
  const { kind, offset, bytes, size } = entry;
  const what = kind === 'resize' ? `${size}` : `${offset}+${bytes.byteLength} #${crc32(bytes).toString(16)}`;
  const identity = `${kind} ${name} ${what}`;
  if (kind === 'resize' || offset < storeOffset || !isMetadata(bytes))
    return [{ disk, change, sector: undefined, identity }];
  return sectorsOf(entry)
    .filter((sector) => {
      const at = sector * SECTOR_SIZE;
      const before = new Uint8Array(SECTOR_SIZE);
      if (model === 'kill') content.read(at, before);
      else before.set(content.durableBytes(at, SECTOR_SIZE));
      const written = bytes.subarray(at - offset, at - offset + SECTOR_SIZE);
      return Buffer.compare(before, written) !== 0 || isWrittenTwice(content, entry, sector);
    })
    .map((sector) => ({ disk, change, sector, identity: `sector ${sector} of ${identity}` }));
}

function isWrittenTwice(content: SimulatedDisk['content'], entry: Readonly<Change>, sector: number): boolean {
  const at = sector * SECTOR_SIZE;
  return content
    .unflushed()
    .some(
      (other) =>
        other !== entry &&
        other.offset <= at &&
        (other.kind === 'resize' || at < other.offset + other.bytes.byteLength),
    );
}

/** Metadata blocks begin with a GUID of which this is the first word; parts of them are shorter than a block. */
const SIGNATURE = 0x3808876b;

function isMetadata(bytes: Uint8Array): boolean {
  if (bytes.byteLength % BLOCK_SIZE !== 0) return true;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === SIGNATURE;
}

function halfOf(change: Change): SectorChoice {
  const sectors = sectorsOf(change);
  const border = sectors[Math.floor(sectors.length / 2)] ?? 0;
  return (sector) => sector < border;
}

/** What says which of `count` units are kept: see the head of this file. */
export function* subsets(
  count: number,
  limit: number,
  random: SeededRandom,
): Generator<() => readonly boolean[]> {
  const kept = (isKept: (index: number) => boolean) => () =>
    Array.from({ length: count }, (_, i) => isKept(i));
  if (count < 31 && 2 ** count <= limit) {
    for (let bits = 0; bits < 2 ** count; bits++) yield kept((index) => ((bits >>> index) & 1) === 1);
    return;
  }
  for (const others of [true, false]) {
    for (let first = 0; first < count; first++)
      for (let second = first; second < count; second++)
        yield kept((index) => (index === first || index === second ? !others : others));
    for (let border = 0; border <= count; border++) yield kept((index) => index < border === others);
  }
  for (let drawn = 0; drawn < limit; drawn++) {
    const share = random.pick([0.2, 0.5, 0.8]);
    const isKept = kept(() => random.chance(share))();
    yield () => isKept;
  }
}
