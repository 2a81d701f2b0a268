/**
 * Mutations of the metadata of an image: bits, bytes, numbers, whole blocks and files.
 *
 * A *sealed* mutation makes the checksums right again afterwards, so that it looks as if the program had written it: what
 * lies behind the checksums is reached. No reader can tell such a forgery from the truth.
 */
import {
  BlockType,
  ENTRIES_PER_TABLE_BLOCK,
  FORMAT_SIGNATURE,
  START_BLOCK_OFFSET,
  START_BLOCK_SIZE,
} from '../../src/format/constants.ts';
import { ITEM_PAIRS, itemPosition, sealPair } from '../../src/format/control-block.ts';
import { checksumWithHole, EXTENSION, sealBlock } from '../../src/format/extension.ts';
import { encodeGuid } from '../../src/format/guid.ts';
import { START } from '../../src/format/start-block.ts';
import {
  entriesChecksum,
  entryChecksum,
  entryFlags,
  entryPosition,
  entryVolumeOffset,
  epochBytesOf,
  isEmptyEntry,
} from '../../src/format/table-block.ts';
import type { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../src/units.ts';
import type { Base, Image } from './bases.ts';

/** What a mutated place belongs to. */
export type Structure =
  | 'start'
  | 'control header'
  | 'control items'
  | 'table header'
  | 'table entries'
  | 'information'
  | 'location'
  | 'copies'
  | 'file';

export interface Mutation {
  readonly description: string;
  readonly structures: readonly Structure[];
  /** Were checksums made right again? */
  readonly sealed: boolean;
  readonly image: Image;
}

interface Place {
  readonly file: string;
  readonly offset: number;
  readonly type: BlockType | 'copy';
}

const SIGNATURE = new Uint8Array(16);
encodeGuid(SIGNATURE, 0, FORMAT_SIGNATURE);

/** Where the metadata blocks of a base lie, and those that hold copies. */
export function placesOf(base: Base): Place[] {
  const places: Place[] = [];
  for (const [file, bytes] of base.image) {
    const inside = base.layout === 'in-volume';
    if (file === 'device' && !inside) continue;
    const from = file === 'device' ? Math.ceil(base.size / BLOCK_SIZE) * BLOCK_SIZE : 0;
    if (hasSignature(bytes, START_BLOCK_OFFSET) && typeAt(bytes, START_BLOCK_OFFSET) === BlockType.start)
      places.push({ file, offset: START_BLOCK_OFFSET, type: BlockType.start });
    for (let offset = from; offset + BLOCK_SIZE <= bytes.byteLength; offset += BLOCK_SIZE) {
      // The kept sector of an in-volume store belongs to the volume; it is not metadata, even if it looks so.
      if (file === 'device' && offset === from + 9 * BLOCK_SIZE) continue;
      if (hasSignature(bytes, offset))
        places.push({ file, offset, type: typeAt(bytes, offset) as BlockType });
      else if (offset > from + 9 * BLOCK_SIZE || file !== 'device') {
        if (bytes.subarray(offset, offset + BLOCK_SIZE).some((byte) => byte !== 0))
          places.push({ file, offset, type: 'copy' });
      }
    }
  }
  return places.filter(({ file, offset, type }) => !(type === 'copy' && file !== 'device' && offset === 0));
}

const hasSignature = (bytes: Uint8Array, offset: number): boolean =>
  SIGNATURE.every((byte, i) => bytes[offset + i] === byte);

const viewAt = (bytes: Uint8Array, offset: number, length: number): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset + offset, length);

const typeAt = (bytes: Uint8Array, offset: number): number => viewAt(bytes, offset, 24).getUint32(20, true);

/** Control blocks that hold no item, apart from the first, are worth little: one of them stays. */
export function interesting(base: Base, places: readonly Place[]): Place[] {
  let empty = 0;
  return places.filter(({ file, offset, type }) => {
    if (type !== BlockType.control) return true;
    const bytes = base.image.get(file);
    const used = bytes?.subarray(offset + 128, offset + BLOCK_SIZE).some((byte) => byte !== 0) ?? false;
    return used || empty++ === 0;
  });
}

export function mutate(base: Base, places: readonly Place[], random: SeededRandom): Mutation {
  const writer = new Mutator(base, places, random);
  const count = random.chance(0.7) ? 1 : random.between(2, 4);
  for (let i = 0; i < count; i++) writer.step();
  const sealed = random.chance(0.5) && writer.seal();
  return {
    description: writer.steps.join('; ') + (sealed ? '; sealed' : ''),
    structures: [...writer.structures],
    sealed,
    image: writer.image,
  };
}

class Mutator {
  readonly #base: Base;
  readonly #places: readonly Place[];
  readonly #random: SeededRandom;
  readonly image: Map<string, Uint8Array>;
  readonly steps: string[] = [];
  readonly structures = new Set<Structure>();
  readonly #copied = new Set<string>();
  readonly #touched = new Map<string, Place>();

  constructor(base: Base, places: readonly Place[], random: SeededRandom) {
    this.#base = base;
    this.#places = places;
    this.#random = random;
    this.image = new Map(base.image);
  }

  /** The bytes of a file, to be changed. */
  #bytes(file: string): Uint8Array {
    const bytes = this.image.get(file) ?? new Uint8Array(0);
    if (this.#copied.has(file)) return bytes;
    const copy = bytes.slice();
    this.#copied.add(file);
    this.image.set(file, copy);
    return copy;
  }

  #touch(place: Place, at: number): void {
    this.#touched.set(`${place.file}@${place.offset}`, place);
    this.structures.add(structureOf(place, at));
  }

  step(): void {
    const random = this.#random;
    // Not the places of copies too often: they are many, and their checksums simple.
    const metadata = this.#places.filter(({ type }) => type !== 'copy');
    const place = random.chance(0.08) ? random.pick(this.#places) : random.pick(metadata);
    const kind = random.below(100);
    if (kind < 22) this.#flip(place);
    else if (kind < 32) this.#setByte(place);
    else if (kind < 62) this.#setNumber(place, 8);
    else if (kind < 72) this.#setNumber(place, 4);
    else if (kind < 78) this.#swap(place);
    else if (kind < 84) this.#duplicate(place);
    else if (kind < 90) this.#clear(place);
    else if (kind < 95) this.#truncate();
    else this.#files();
  }

  #length({ type }: Place): number {
    return type === BlockType.start ? START_BLOCK_SIZE : BLOCK_SIZE;
  }

  /** A byte of the place, rather one that means something. */
  #position(place: Place, unit: number): number {
    const random = this.#random;
    const length = this.#length(place);
    const header = place.type === BlockType.start ? 160 : 128;
    const bytes = this.image.get(place.file) ?? new Uint8Array(0);
    let at: number;
    if (place.type === 'copy' || random.chance(0.1)) at = random.below(length);
    else if (random.chance(place.type === BlockType.start ? 1 : 0.45)) at = random.below(header);
    else {
      // Somewhere in the used part of the payload, which begins at its start.
      let end = length;
      while (end > header + 256 && bytes[place.offset + end - 1] === 0) end--;
      at = header + random.below(end - header);
    }
    return Math.floor(at / unit) * unit;
  }

  #flip(place: Place): void {
    const at = this.#position(place, 1);
    const bytes = this.#bytes(place.file);
    if (place.offset + at >= bytes.byteLength) return;
    const bit = this.#random.below(8);
    bytes[place.offset + at] = (bytes[place.offset + at] ?? 0) ^ (1 << bit);
    this.#note(place, at, `bit ${bit} of byte ${at} flipped`);
  }

  #setByte(place: Place): void {
    const at = this.#position(place, 1);
    const value = this.#random.pick([0, 1, 0x7f, 0x80, 0xff, this.#random.below(256)]);
    const bytes = this.#bytes(place.file);
    if (place.offset + at >= bytes.byteLength) return;
    bytes[place.offset + at] = value;
    this.#note(place, at, `byte ${at} = ${value}`);
  }

  #setNumber(place: Place, width: 4 | 8): void {
    const at = this.#position(place, width);
    const bytes = this.#bytes(place.file);
    if (place.offset + at + width > bytes.byteLength) return;
    const view = viewAt(bytes, place.offset + at, width);
    const random = this.#random;
    if (width === 4) {
      const value = random.pick([0, 1, 2, 3, 4, 5, 6, 7, 0xffff_ffff, 0x8000_0000, random.next()]);
      view.setUint32(0, value, true);
      this.#note(place, at, `u32 at ${at} = ${value}`);
      return;
    }
    const old = view.getBigUint64(0, true);
    const block = BigInt(BLOCK_SIZE);
    const values = [
      0n,
      1n,
      2n ** 64n - 1n,
      2n ** 63n,
      2n ** 53n,
      2n ** 53n - 1n,
      2n ** 53n - block,
      BigInt(random.below(2 ** 40)) * block,
      BigInt(random.below(600)) * block,
      BigInt(random.pick(this.#places).offset),
      BigInt(random.pick(this.#places).offset),
      old + block,
      old - block,
      old + 1n,
      BigInt(bytes.byteLength),
      BigInt(random.next()),
    ];
    const value = BigInt.asUintN(64, random.pick(values));
    view.setBigUint64(0, value, true);
    this.#note(place, at, `u64 at ${at} = ${value}`);
  }

  #swap(place: Place): void {
    const other = this.#random.pick(this.#places);
    const length = Math.min(this.#length(place), this.#length(other));
    const a = this.#bytes(place.file);
    const b = this.#bytes(other.file);
    if (place.offset + length > a.byteLength || other.offset + length > b.byteLength) return;
    const held = a.slice(place.offset, place.offset + length);
    a.set(b.subarray(other.offset, other.offset + length), place.offset);
    b.set(held, other.offset);
    this.#note(place, -1, `swapped with ${nameOf(other)}`);
    this.#touch(other, -1);
  }

  #duplicate(place: Place): void {
    const other = this.#random.pick(this.#places);
    const length = Math.min(this.#length(place), this.#length(other));
    const a = this.#bytes(place.file);
    const b = this.#bytes(other.file);
    if (place.offset + length > a.byteLength || other.offset + length > b.byteLength) return;
    a.set(b.slice(other.offset, other.offset + length), place.offset);
    this.#note(place, -1, `is a copy of ${nameOf(other)}`);
  }

  #clear(place: Place): void {
    const length = this.#length(place);
    const bytes = this.#bytes(place.file);
    const whole = this.#random.chance(0.5);
    const at = whole ? 0 : this.#position(place, SECTOR_SIZE);
    const end = whole ? length : at + SECTOR_SIZE;
    if (place.offset + end > bytes.byteLength) return;
    const fill = this.#random.pick([0, 0, 0xff, 0xdb]);
    bytes.fill(fill, place.offset + at, place.offset + end);
    this.#note(place, whole ? -1 : at, `bytes ${at} to ${end} filled with ${fill}`);
  }

  #truncate(): void {
    const files = [...this.image.keys()].filter(
      (file) => file !== 'device' || this.#base.layout === 'in-volume',
    );
    const file = this.#random.pick(files);
    const bytes = this.#bytes(file);
    const unit = this.#random.pick([1, SECTOR_SIZE, BLOCK_SIZE]);
    const least = file === 'device' ? this.#base.size : 0;
    const length = least + Math.floor(this.#random.below(bytes.byteLength - least + 1) / unit) * unit;
    this.image.set(file, bytes.slice(0, length));
    this.steps.push(`${file} cut off at ${length}`);
    this.structures.add('file');
  }

  #files(): void {
    const files = [...this.image.keys()].filter((file) => file !== 'device');
    if (files.length < 2) {
      this.#truncate();
      return;
    }
    const [a, b] = this.#random.shuffle([...files]);
    if (a === undefined || b === undefined) return;
    const held = this.#bytes(a);
    if (this.#random.chance(0.3)) {
      this.image.delete(a);
      this.steps.push(`${a} removed`);
    } else {
      this.image.set(a, this.#bytes(b));
      this.image.set(b, held);
      this.steps.push(`${a} and ${b} swapped`);
    }
    this.structures.add('file');
  }

  #note(place: Place, at: number, what: string): void {
    this.steps.push(`${nameOf(place)}: ${what}`);
    this.#touch(place, at);
  }

  /** Makes the checksums of what was touched right again; false if nothing has one. */
  seal(): boolean {
    let done = false;
    for (const { file, offset } of this.#touched.values()) {
      const bytes = this.image.get(file);
      if (bytes === undefined) continue;
      if (offset === START_BLOCK_OFFSET && offset + START_BLOCK_SIZE <= bytes.byteLength) {
        const sector = bytes.subarray(offset, offset + START_BLOCK_SIZE);
        const checksum = checksumWithHole(sector, START.at.checksum);
        viewAt(bytes, offset, START_BLOCK_SIZE).setUint32(START.at.checksum, checksum, true);
        done = true;
        continue;
      }
      if (offset + BLOCK_SIZE > bytes.byteLength) continue;
      const block = bytes.subarray(offset, offset + BLOCK_SIZE);
      const type = typeAt(bytes, offset);
      if (type < BlockType.control || type > BlockType.bitmap) continue;
      if (type === BlockType.table) this.#sealEntries(file, offset, bytes, block);
      if (type === BlockType.control) this.#sealPairs(bytes, block);
      sealBlock(block);
      done = true;
    }
    return done;
  }

  #sealEntries(file: string, offset: number, bytes: Uint8Array, block: Uint8Array): void {
    const view = viewAt(block, 0, BLOCK_SIZE);
    const epoch = epochBytesOf(view.getBigUint64(72, true));
    for (let index = 0; index < 508; index++) {
      const at = entryPosition(index);
      if (isEmptyEntry(view, at) || entryFlags(view, at) !== 0) continue;
      const from = entryVolumeOffset(view, at);
      if (from + BLOCK_SIZE > bytes.byteLength) continue;
      const entry = block.subarray(at, at + 32);
      view.setUint32(at + 28, entryChecksum(entry, epoch, bytes.subarray(from, from + BLOCK_SIZE)), true);
    }
    const covered = coveredEntries(this.#base.image.get(file), offset);
    view.setUint32(EXTENSION.at.entriesChecksum, entriesChecksum(block, 0, covered), true);
  }

  /** Of every pair of items, whether it was touched or not. */
  #sealPairs(bytes: Uint8Array, block: Uint8Array): void {
    if (bytes.byteLength < START_BLOCK_OFFSET + START_BLOCK_SIZE) return;
    const storeId = viewAt(bytes, START_BLOCK_OFFSET, START_BLOCK_SIZE).getBigUint64(START.at.storeId, true);
    for (const index of ITEM_PAIRS) if (block[itemPosition(index)] === 2) sealPair(block, index, storeId);
  }
}

/** How many entries of the table block at `offset` its header's checksum covers. */
function coveredEntries(bytes: Uint8Array | undefined, offset: number): number {
  if (bytes === undefined) return 0;
  const block = bytes.subarray(offset, offset + BLOCK_SIZE);
  const stored = viewAt(bytes, offset, BLOCK_SIZE).getUint32(EXTENSION.at.entriesChecksum, true);
  let checksum = 0;
  for (let count = 0; count < ENTRIES_PER_TABLE_BLOCK; count++) {
    if (checksum === stored) return count;
    checksum = entriesChecksum(block, count, count + 1, checksum);
  }
  return checksum === stored ? ENTRIES_PER_TABLE_BLOCK : 0;
}

const nameOf = ({ file, offset, type }: Place): string => `${file}@${offset} (${type})`;

/** @param at byte within the block; -1 for all of it */
function structureOf({ type }: Place, at: number): Structure {
  const payload = at < 0 || at >= 128;
  switch (type) {
    case BlockType.start:
      return 'start';
    case BlockType.control:
      return payload ? 'control items' : 'control header';
    case BlockType.table:
      return payload ? 'table entries' : 'table header';
    case BlockType.applicationInformation:
      return 'information';
    case BlockType.location:
      return 'location';
    default:
      return 'copies';
  }
}
