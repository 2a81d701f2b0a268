/**
 * Builds small volumes with shadow copies as Windows lays them out, from a description.
 *
 * Every block that nothing else claims holds its own number, so a test can tell by the bytes where they came from.
 */
import type { ApplicationInformation } from '../../../src/format/application-information.ts';
import {
  encodeApplicationInformationBlock,
  informationOf,
} from '../../../src/format/application-information.ts';
import { encodeBitmapBlock, setBit } from '../../../src/format/bitmap-block.ts';
import type { NewBlock } from '../../../src/format/block-header.ts';
import { PAYLOAD_SIZE, START_BLOCK_OFFSET } from '../../../src/format/constants.ts';
import { type ControlItem, encodeControlBlock, itemPosition } from '../../../src/format/control-block.ts';
import type { Guid } from '../../../src/format/guid.ts';
import { encodeLocationBlock, type Location } from '../../../src/format/location-block.ts';
import { encodeStartBlock } from '../../../src/format/start-block.ts';
import { encodeTableBlock, type TableEntry } from '../../../src/format/table-block.ts';
import { BLOCK_SIZE, type BlockNumber, roundUp, SECTOR_SIZE } from '../../../src/units.ts';

export interface SnapshotPlan {
  /** Two digits that end the GUIDs of the snapshot. */
  readonly number: number;
  readonly createdAt: bigint;
  /** Entries of each table block of the chain. */
  readonly tables: readonly (readonly TableEntry[])[];
  /** Blocks declared unused; `undefined`: no bitmap. */
  readonly unused?: readonly BlockNumber[] | undefined;
  readonly previouslyUnused?: readonly BlockNumber[] | undefined;
  readonly information?: Partial<ApplicationInformation>;
  /**
   * Blocks of its file that are free: behind its metadata in the same run, then in runs of their own, each after a block that is
   * not the file's. Default: what the location list says makes no sense.
   */
  readonly free?: readonly number[];
}

export interface ImagePlan {
  /** Bytes of the volume. */
  readonly size: number;
  /** First block used for metadata; those before it belong to the test. */
  readonly metadataFrom: BlockNumber;
  readonly snapshots: readonly SnapshotPlan[];
  /** The control items of each control block; each snapshot stands for its two. Default: all pairs in one block. */
  readonly catalog?: readonly (readonly CatalogPlace[])[];
  readonly version?: 1 | 2;
}

/** Where an item goes: a snapshot by its number with what is to be put between its two items, or another item. */
export type CatalogPlace = PairPlace | ControlItem;
interface PairPlace {
  readonly pair: number;
  readonly between?: readonly ControlItem[];
}

export interface WindowsImage {
  readonly bytes: Uint8Array;
  /** Block at which each kind of block of each snapshot (by number) begins. */
  readonly at: ReadonlyMap<string, BlockNumber>;
  /** First block after all metadata. */
  readonly end: BlockNumber;
  /** Blocks of control file and stores, `[start, end)`. */
  readonly stores: readonly (readonly [BlockNumber, BlockNumber])[];
}

export const storeIdOf = (number: number): Guid => `600f0b64-5bdf-11e3-9d6c-0050560000${twoDigits(number)}`;
export const snapshotIdOf = (number: number): Guid =>
  `4e3c03c2-7bc6-4288-ad96-c1eac1a55f${twoDigits(number)}`;
export const setIdOf = (number: number): Guid => `0a4e3901-6abb-48fc-95c2-6ab9e38e9e${twoDigits(number)}`;
const twoDigits = (number: number): string => number.toString(16).padStart(2, '0');

export const copy = (block: BlockNumber, to: BlockNumber, flags = 0x88): TableEntry => ({
  originalOffset: block * BLOCK_SIZE,
  relativeOffset: to * BLOCK_SIZE,
  volumeOffset: to * BLOCK_SIZE,
  flags,
  bitmap: 0,
});
export const move = (block: BlockNumber, to: BlockNumber, flags = 0x1): TableEntry => ({
  originalOffset: block * BLOCK_SIZE,
  relativeOffset: to * BLOCK_SIZE,
  volumeOffset: 0,
  flags,
  bitmap: 0,
});
export const overlay = (block: BlockNumber, to: BlockNumber, bitmap: number, flags = 0x2): TableEntry => ({
  ...copy(block, to, flags),
  bitmap,
});
export const EMPTY_ENTRY: TableEntry = {
  originalOffset: 0,
  relativeOffset: 0,
  volumeOffset: 0,
  flags: 0,
  bitmap: 0,
};

/** Number that a sector of an untouched block holds in each of its words. */
export const stampOf = (block: BlockNumber, sector: number): number => 0x5a00_0000 + block * 32 + sector;

export function buildWindowsImage(plan: ImagePlan): WindowsImage {
  const writer = new ImageWriter(plan);
  const items = new Map(plan.snapshots.map((snapshot) => [snapshot.number, writer.addSnapshot(snapshot)]));
  const catalog: readonly (readonly CatalogPlace[])[] = plan.catalog ?? [
    plan.snapshots.map(({ number }) => ({ pair: number })),
  ];
  writer.addCatalog(
    catalog.map((places) =>
      places.flatMap((place) => {
        if (!('pair' in place)) return [place];
        const [snapshot, diffArea] = items.get(place.pair) ?? [];
        return [...(snapshot ? [snapshot] : []), ...(place.between ?? []), ...(diffArea ? [diffArea] : [])];
      }),
    ),
  );
  return writer.finish();
}

/** @param used blocks of metadata in the file */
function fileRuns(first: BlockNumber, used: number, free: readonly number[] | undefined): Location[] {
  if (free === undefined)
    return [{ volumeOffset: first * BLOCK_SIZE, fileOffset: 0, length: 64 * BLOCK_SIZE }];
  const [behind = 0, ...others] = free;
  const runs: Location[] = [];
  let [block, fileBlock] = [first, 0];
  for (const length of [used + behind, ...others]) {
    runs.push({
      volumeOffset: block * BLOCK_SIZE,
      fileOffset: fileBlock * BLOCK_SIZE,
      length: length * BLOCK_SIZE,
    });
    block += length + 1;
    fileBlock += length;
  }
  return runs;
}

class ImageWriter {
  readonly #plan: ImagePlan;
  readonly #bytes: Uint8Array;
  readonly #at = new Map<string, BlockNumber>();
  readonly #stores: [BlockNumber, BlockNumber][] = [];
  #next: BlockNumber;

  constructor(plan: ImagePlan) {
    this.#plan = plan;
    this.#next = plan.metadataFrom;
    this.#bytes = new Uint8Array(roundUp(plan.size, BLOCK_SIZE));
    const words = new Uint32Array(this.#bytes.buffer);
    const perSector = SECTOR_SIZE / 4;
    for (let sector = 0; sector < words.length / perSector; sector++)
      words.fill(stampOf(Math.floor(sector / 32), sector % 32), sector * perSector, (sector + 1) * perSector);
  }

  addSnapshot(plan: SnapshotPlan): [ControlItem, ControlItem] {
    const { number } = plan;
    const first = this.#next;
    const information = { ...informationOf(snapshotIdOf(number), setIdOf(number)), ...plan.information };
    const at = (kind: string): number => {
      const block = this.#at.get(`${kind} ${number}`);
      return block === undefined ? 0 : block * BLOCK_SIZE;
    };
    this.#chain(`information ${number}`, first, 1, (place) =>
      encodeApplicationInformationBlock(place, information),
    );
    this.#chain(`table ${number}`, first, plan.tables.length, (place, index) =>
      encodeTableBlock(place, plan.tables[index] ?? []),
    );
    const bitmaps = Number(plan.unused !== undefined) + Number(plan.previouslyUnused !== undefined);
    const runs = fileRuns(first, 2 + plan.tables.length + bitmaps, plan.free);
    this.#chain(`location ${number}`, first, 1, (place) => encodeLocationBlock(place, runs));
    this.#bitmap(`bitmap ${number}`, first, plan.unused);
    this.#bitmap(`previous bitmap ${number}`, first, plan.previouslyUnused);
    if (plan.free !== undefined) {
      for (const { volumeOffset, length } of runs) {
        const start = volumeOffset / BLOCK_SIZE;
        this.#stores.push([start, start + length / BLOCK_SIZE]);
        this.#next = start + length / BLOCK_SIZE;
      }
      if (this.#next * BLOCK_SIZE > this.#plan.size) throw new Error('no room for free blocks in the image');
    }
    return [
      {
        kind: 'snapshot',
        volumeSize: this.#plan.size,
        storeId: storeIdOf(number),
        order: number,
        flags: 0x40,
        createdAt: plan.createdAt,
      },
      {
        kind: 'diff-area',
        tableOffset: at('table'),
        storeId: storeIdOf(number),
        applicationInformationOffset: at('information'),
        locationOffset: at('location'),
        bitmapOffset: at('bitmap'),
        fileReference: 0x1_0000_0000_0000n + BigInt(number),
        allocatedSize: 0,
        previousBitmapOffset: at('previous bitmap'),
        unknown: 0n,
        state: 0,
        heldUntil: 0n,
        elderOrder: 0,
      },
    ];
  }

  addCatalog(blocks: readonly (readonly ControlItem[])[]): void {
    const first = this.#next;
    this.#stores.push([first, first + blocks.length]);
    this.#chain('control', first, blocks.length, (place, index) => {
      const block = encodeControlBlock({ ...place, fileOffset: index * BLOCK_SIZE }, blocks[index] ?? []);
      // Bytes that Windows leaves behind in items that are free.
      (blocks[index] ?? []).forEach((item, i) => {
        if (item.kind === 'free') block.fill(0, itemPosition(i) + 8, itemPosition(i + 1));
      });
      return block;
    });
    const start = encodeStartBlock({
      version: this.#plan.version ?? 1,
      firstControlBlock: blocks.length === 0 ? 0 : first * BLOCK_SIZE,
      maximumSize: 0,
      volumeId: storeIdOf(0),
      storageVolumeId: storeIdOf(0),
    });
    this.#bytes.set(start, START_BLOCK_OFFSET);
  }

  finish(): WindowsImage {
    return {
      bytes: this.#bytes.subarray(0, this.#plan.size),
      at: this.#at,
      end: this.#next,
      stores: this.#stores,
    };
  }

  #bitmap(name: string, first: BlockNumber, blocks: readonly BlockNumber[] | undefined): void {
    if (blocks === undefined) return;
    const bits = new Uint8Array(PAYLOAD_SIZE);
    for (const block of blocks) setBit(bits, block, true);
    this.#chain(name, first, 1, (place) => encodeBitmapBlock(place, bits));
  }

  #chain(
    name: string,
    first: BlockNumber,
    length: number,
    encode: (place: NewBlock, index: number) => Uint8Array,
  ): void {
    if (length === 0) return;
    this.#at.set(name, this.#next);
    for (let index = 0; index < length; index++) {
      const block = this.#next++;
      if ((block + 1) * BLOCK_SIZE > this.#plan.size) throw new Error(`no room for ${name} in the image`);
      const nextOffset = index + 1 < length ? this.#next * BLOCK_SIZE : 0;
      const place = {
        fileOffset: (block - first) * BLOCK_SIZE,
        volumeOffset: block * BLOCK_SIZE,
        nextOffset,
        epoch: undefined,
      };
      this.#bytes.set(encode(place, index), block * BLOCK_SIZE);
    }
  }
}
