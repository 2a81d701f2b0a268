/**
 * Random volumes with shadow copies, within what research on the format calls free of doubt: no move back, no move of
 * a block to itself, no move and overlay in one entry, no items out of place, equal sizes, whole bitmaps.
 */

import type { ControlItem } from '../../../src/format/control-block.ts';
import type { TableEntry } from '../../../src/format/table-block.ts';
import type { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE, type BlockNumber } from '../../../src/units.ts';
import {
  buildWindowsImage,
  type CatalogPlace,
  copy,
  EMPTY_ENTRY,
  move,
  overlay,
  type SnapshotPlan,
  type WindowsImage,
} from './windows-image.ts';

/** Blocks that entries are about; few, so that entries meet. Block 0 holds the start block. */
const SUBJECTS = 14;
/** Blocks that entries take their data from. */
const DATA = 20;
const COPY_FLAGS = [0, 0x8, 0x10, 0x18, 0x28, 0x48, 0x88, 0xf8, 0x100, 0x8000_0000];
const MOVE_FLAGS = [0x1, 0x9, 0x21, 0x81];
const OVERLAY_FLAGS = [0x2, 0x22, 0x42, 0x82, 0xa];
const UNUSED_FLAGS = [0x4, 0x6, 0x8c, 0x4, 0x86];
const START_TIME = 130_305_261_097_363_787n;

export function randomWindowsImage(random: SeededRandom): WindowsImage {
  const count = random.between(1, 4);
  const blocks = 90;
  const cut = random.chance(0.3) ? random.below(31) * 512 + 512 : 0;
  const numbers = random.shuffle(Array.from({ length: count }, (_, index) => index + 1));
  const snapshots = numbers.map((number, age) => randomSnapshot(random, number, age, blocks - 1));
  return buildWindowsImage({
    size: blocks * BLOCK_SIZE - cut,
    metadataFrom: SUBJECTS + DATA,
    snapshots: random.shuffle(snapshots.slice()),
    catalog: randomCatalog(random, numbers),
    version: random.chance(0.5) ? 1 : 2,
  });
}

/** The same as a volume that can be written: with free blocks in the stores, and in the newest no moves that cannot be told apart. */
export interface WritableImage extends WindowsImage {
  /** Oldest first. */
  readonly snapshots: readonly SnapshotPlan[];
}

/** @param spare further blocks at the end, of which all but the first few are declared unused where anything is */
export function randomWritableImage(random: SeededRandom, spare = 0): WritableImage {
  const count = random.between(1, 3);
  const most = random.pick([6, 20, 60]);
  const blocks = 110 + 3 * most + spare;
  const unusedSpare = Array.from({ length: spare }, (_, index) => blocks - spare + index).slice(3, -1);
  const cut = random.chance(0.3) ? random.between(1, 31) * 512 : 0;
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  const snapshots = numbers.map((number, age) => {
    const drawn = randomSnapshot(random, number, age, blocks - 1);
    const plan = {
      ...drawn,
      unused: drawn.unused && [...drawn.unused, ...unusedSpare],
      previouslyUnused: drawn.previouslyUnused && [...drawn.previouslyUnused, ...unusedSpare],
    };
    if (number < count) return { ...plan, free: [random.below(3)] };
    const free = Array.from({ length: random.between(1, 3) }, () => random.between(1, most));
    return { ...plan, tables: nearlyFull(random, withoutDoubt(plan.tables)), free };
  });
  const catalog = random.chance(0.5)
    ? [[EMPTY, ...numbers.map((pair) => ({ pair }))]]
    : [numbers.map((pair) => ({ pair }))];
  const image = buildWindowsImage({
    size: blocks * BLOCK_SIZE - cut,
    metadataFrom: SUBJECTS + DATA,
    snapshots,
    catalog,
  });
  return { ...image, snapshots };
}

const EMPTY = { kind: 'end' } as const;

/** Without what a writer must not produce: an ordinary entry for a block that has moved and not come back, two moves to one target. */
function withoutDoubt(tables: SnapshotPlan['tables']): TableEntry[][] {
  const live = new Map<number, number>();
  const isIn = (source: number): boolean => [...live.values()].includes(source);
  return (tables.length === 0 ? [[]] : tables).map((entries) =>
    entries.filter(({ originalOffset, relativeOffset, flags }) => {
      if ((flags & 6) !== 0) return true;
      if ((flags & 1) === 0) {
        if (live.delete(originalOffset)) return true;
        return !isIn(originalOffset);
      }
      if (live.has(relativeOffset) || live.has(originalOffset) || isIn(originalOffset)) return false;
      live.set(relativeOffset, originalOffset);
      return true;
    }),
  );
}

/** The last table with entries that are to be ignored, up to its end or nearly, so that the chain soon goes on in another. */
function nearlyFull(random: SeededRandom, tables: readonly TableEntry[][]): TableEntry[][] {
  const last = tables.at(-1) ?? [];
  if (random.chance(0.3)) return [...tables];
  const filler = Array.from({ length: 508 - random.pick([0, 1, 2, 5, 13]) - last.length }, () =>
    copy(1, SUBJECTS, 0x4),
  );
  return [...tables.slice(0, -1), [...last, ...filler]];
}

function randomSnapshot(random: SeededRandom, number: number, age: number, last: BlockNumber): SnapshotPlan {
  const subjects = [...Array.from({ length: SUBJECTS - 1 }, (_, index) => index + 1), last];
  const entries = randomEntries(random, subjects, last);
  const tables: TableEntry[][] = Array.from(
    { length: random.between(entries.length === 0 ? 0 : 1, 3) },
    () => [],
  );
  // In order over the chain, with tables that are not full.
  const limits = tables.map(() => random.below(entries.length + 1)).sort((a, b) => a - b);
  entries.forEach((entry, index) => {
    const table =
      tables[
        Math.max(
          0,
          limits.findLastIndex((limit) => limit <= index),
        )
      ];
    if (random.chance(0.1)) table?.push(EMPTY_ENTRY);
    table?.push(entry);
  });
  const bits = (): BlockNumber[] =>
    [...subjects, SUBJECTS + 1, SUBJECTS + 3].filter(() => random.chance(0.6));
  const bitmap = random.chance(0.8);
  return {
    number,
    createdAt: START_TIME + BigInt(age) * 10_000_000n + BigInt(random.below(10_000_000)),
    tables,
    unused: bitmap ? bits() : undefined,
    previouslyUnused: random.chance(0.5) ? bits() : undefined,
    information: { originatingMachine: 'machine', serviceMachine: random.chance(0.5) ? 'service' : '' },
  };
}

function randomEntries(
  random: SeededRandom,
  subjects: readonly BlockNumber[],
  last: BlockNumber,
): TableEntry[] {
  const entries: TableEntry[] = [];
  // What moved and where to, kept as the rules say, so that no doubtful move is drawn.
  const sourceOf = new Map<BlockNumber, BlockNumber>();
  const moves = random.chance(0.7);
  for (let left = random.below(random.chance(0.2) ? 40 : 12); left > 0; left--) {
    const block = random.pick(subjects);
    const data = SUBJECTS + random.below(DATA);
    const kind = random.below(10);
    if (kind < 1) {
      entries.push(copy(block, data, random.pick(UNUSED_FLAGS)));
    } else if (kind < 4) {
      const relative = random.chance(0.4) ? 1 : data * BLOCK_SIZE;
      const bits = random.chance(0.2) ? 0xffff_ffff : random.next() & random.next();
      entries.push({
        ...overlay(block, data, bits >>> 0, random.pick(OVERLAY_FLAGS)),
        relativeOffset: relative,
      });
    } else if (kind < 7 && moves) {
      const target = random.pick(subjects);
      // The last block may be short, so a whole one cannot have moved there.
      if (target === last || block === last) continue;
      const source = sourceOf.get(block) ?? block;
      if (target === source || target === block) continue;
      entries.push(move(block, target, random.pick(MOVE_FLAGS)));
      sourceOf.delete(block);
      sourceOf.set(target, source);
    } else {
      entries.push(copy(block, data, random.pick(COPY_FLAGS)));
      sourceOf.delete(block);
    }
  }
  return entries;
}

function randomCatalog(random: SeededRandom, numbers: readonly number[]): CatalogPlace[][] {
  const fillers = (): ControlItem[] =>
    Array.from({ length: random.chance(0.3) ? random.between(1, 3) : 0 }, () => ({
      kind: random.chance(0.5) ? ('free' as const) : ('end' as const),
    }));
  const catalog: CatalogPlace[][] = Array.from({ length: random.between(1, 3) }, () => []);
  for (const pair of random.shuffle(numbers.slice())) {
    const block = random.pick(catalog);
    block.push(...fillers(), { pair, between: fillers() });
  }
  return catalog;
}
