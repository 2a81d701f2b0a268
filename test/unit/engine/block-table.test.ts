/** The translation table against a plain map that does the same. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockTable } from '../../../src/diff-area/block-table.ts';
import { BLOCKS_PER_PAGE } from '../../../src/diff-area/presence.ts';
import { SlotChecksums } from '../../../src/diff-area/slot-checksums.ts';
import { TableFiller } from '../../../src/diff-area/table-filler.ts';
import { LEAF_ENTRIES_MAX, LEAF_RANGE_MAX } from '../../../src/diff-area/table-leaf.ts';
import { AssertionError } from '../../../src/errors.ts';
import { SeededRandom } from '../../../src/testing/index.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { extentsOf, runsOf } from '../../../src/volume/changed-blocks.ts';

const TEBIBYTE = 2 ** 26;

/** Shapes of what gets written, as the block numbers of `count` copies in the order of writing; some come twice. */
const SHAPES: Record<string, (random: SeededRandom, blockCount: number, count: number) => number[]> = {
  ascending: (random, blockCount, count) => run(random.below(blockCount), 1, count, blockCount),
  descending: (random, blockCount, count) => run(random.below(blockCount), -1, count, blockCount),
  'every third': (random, blockCount, count) => run(random.below(blockCount), 3, count, blockCount),
  'every 700th': (random, blockCount, count) => run(random.below(blockCount), 700, count, blockCount),
  'at random': (random, blockCount, count) => Array.from({ length: count }, () => random.below(blockCount)),
  'at random in a dense place': (random, blockCount, count) => {
    const first = random.below(Math.max(1, blockCount - 2 * count));
    return Array.from({ length: count }, () => Math.min(blockCount - 1, first + random.below(2 * count)));
  },
  'runs at random': (random, blockCount, count) => {
    const blocks: number[] = [];
    while (blocks.length < count)
      blocks.push(...run(random.below(blockCount), 1, 1 + random.below(300), blockCount));
    return blocks.slice(0, count);
  },
};

const run = (first: number, step: number, count: number, blockCount: number): number[] =>
  Array.from({ length: count }, (_, i) => (((first + i * step) % blockCount) + blockCount) % blockCount);

const turn = () => Promise.resolve();

const shape = fc.constantFrom(...Object.keys(SHAPES));

/** A table and what should be in it; slots are all different, now and then above 2^24. */
class Pair {
  readonly model = new Map<number, number>();
  readonly table: BlockTable;
  #nextSlot = 5;

  constructor(blockCount: number) {
    this.table = new BlockTable(blockCount);
  }

  slotFor(block: number): number {
    const slot = block % 997 === 0 ? 2 ** 24 + this.#nextSlot++ * 100 : this.#nextSlot++;
    this.model.set(block, slot);
    return slot;
  }

  expectSame(probes: readonly number[]): void {
    const { table, model } = this;
    expect(table.size).toBe(model.size);
    for (const block of [...model.keys(), ...probes]) {
      const slot = model.get(block);
      // Without `expect`, which would take nearly all of the time.
      if (table.has(block) === (slot !== undefined) && table.slotOf(block) === (slot ?? -1)) continue;
      expect.fail(`block ${block}: slot ${table.slotOf(block)}, has ${table.has(block)}, should be ${slot}`);
    }
    const ascending = [...model.keys()].sort((a, b) => a - b);
    expect([...table.blocks()]).toEqual(ascending);
    expect(blocksIn(runsOf([table], 0, table.blockCount))).toEqual(ascending);
  }
}

const checksumOf = (block: number): number => Math.imul(block + 1, 0x9e3779b1) >>> 0;

/** Blocks of runs one by one. */
const blocksIn = (runs: Iterable<{ readonly start: number; readonly end: number }>): number[] =>
  [...runs].flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i));

describe('BlockTable', () => {
  test('is a map from blocks to slots, and from slots to checksums', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(10, 300, 3 * BLOCKS_PER_PAGE + 100, TEBIBYTE),
        fc.array(fc.tuple(shape, fc.nat(6000)), { maxLength: 4 }),
        fc.nat(),
        (blockCount, steps, seed) => {
          const pair = new Pair(blockCount);
          const random = new SeededRandom(seed);
          for (const [name, count] of steps) {
            for (const block of SHAPES[name]?.(random, blockCount, count) ?? []) {
              pair.table.set(block, pair.slotFor(block), checksumOf(block));
            }
          }
          const neighbours = [...pair.model.keys()].flatMap((block) => [block - 1, block + 1]);
          pair.expectSame(neighbours.filter((block) => block >= 0 && block < blockCount));
          for (const [block, slot] of pair.model) {
            if (pair.table.checksumAt(slot) !== checksumOf(block)) expect.fail(`checksum of slot ${slot}`);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('is filled in any order by a filler, one after the other and on top of what is there', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(shape, fc.nat(40_000)), { maxLength: 4 }),
        fc.nat(),
        async (steps, seed) => {
          const pair = new Pair(TEBIBYTE);
          const random = new SeededRandom(seed);
          for (const [name, count] of steps) {
            const filler = new TableFiller(pair.table);
            const blocks = SHAPES[name]?.(random, TEBIBYTE, count) ?? [];
            for (let from = 0; from < blocks.length; ) {
              const some = blocks.slice(from, from + 1 + random.below(600));
              const slots = some.map((block) => pair.slotFor(block));
              if (some.length === 1) filler.add(some[0] ?? 0, slots[0] ?? 0, checksumOf(some[0] ?? 0));
              else
                filler.addAll(
                  {
                    blocks: Uint32Array.from(some),
                    slots: Uint32Array.from(slots),
                    checksums: Uint32Array.from(some, checksumOf),
                  },
                  some.length,
                );
              from += some.length;
            }
            await filler.finish(turn);
          }
          pair.expectSame([]);
          for (const [block, slot] of pair.model) {
            if (pair.table.checksumAt(slot) !== checksumOf(block)) expect.fail(`checksum of slot ${slot}`);
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test('collects the slots of a range, of the oldest table that has each block', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(shape, fc.nat(2000)), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        (steps, seed) => {
          const blockCount = 20_000;
          const random = new SeededRandom(seed);
          const pairs = steps.map(([name, count]) => {
            const pair = new Pair(blockCount);
            for (const block of SHAPES[name]?.(random, blockCount, count) ?? [])
              pair.table.set(block, pair.slotFor(block), 0);
            return pair;
          });
          for (const length of [1, 64, 700, 9000]) {
            const first = random.below(blockCount - length);
            const slots = new Uint32Array(length);
            const owners = new Uint16Array(length);
            let found = 0;
            for (const [index, { table }] of pairs.entries())
              found += table.collect(first, slots, owners, index + 1);
            const expected = Array.from(
              slots,
              (_, i) => pairs.findIndex(({ model }) => model.has(first + i)) + 1,
            );
            expect([...owners]).toEqual(expected);
            expect(found).toBe(expected.filter((owner) => owner > 0).length);
            expect([...slots]).toEqual(
              expected.map((owner, i) => pairs[owner - 1]?.model.get(first + i) ?? 0),
            );
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  test('reaches beyond what one leaf may span, in volumes of more than 64 TiB too', async () => {
    const blockCount = 2 ** 33;
    const pair = new Pair(blockCount);
    const blocks = [
      0,
      1,
      LEAF_RANGE_MAX - 1,
      LEAF_RANGE_MAX,
      LEAF_RANGE_MAX + 1,
      2 ** 32 - 1,
      2 ** 32,
      2 ** 32 + 7,
      blockCount - 1,
    ];
    const filler = new TableFiller(pair.table);
    for (const block of blocks) filler.add(block, pair.slotFor(block), 1);
    await filler.finish(turn);
    for (const block of blocks)
      expect(pair.table.slotOf(block), `block ${block}`).toBe(pair.model.get(block));
    for (const block of [2, LEAF_RANGE_MAX + 2, 2 ** 32 + 1, blockCount - 2])
      expect(pair.table.has(block)).toBe(false);
  });

  test('refuses blocks past the volume and answers for them as having no copy', () => {
    const table = new BlockTable(10);
    expect(() => table.set(10, 1, 1)).toThrow(AssertionError);
    expect(() => table.set(-1, 1, 1)).toThrow(AssertionError);
    expect(table.has(10)).toBe(false);
    expect(table.slotOf(1_000_000)).toBe(-1);
  });

  test('of a tebibyte costs next to nothing while empty, and little with a few copies', () => {
    const table = new BlockTable(TEBIBYTE);
    expect(table.memoryBytes).toBeLessThan(200);
    const random = new SeededRandom('few');
    for (let i = 0; i < 10; i++) table.set(random.below(TEBIBYTE), i + 5, 1);
    expect(table.memoryBytes).toBeLessThan(5000);
  });

  // A table block takes one slot in 509, and so leaves a gap among the checksums.
  const slotOfCopy = (index: number): number => index + 5 + Math.floor(index / 508);

  test.each([
    { name: 'all blocks in order', blockCount: 200_000, bytes: 7.5 },
    { name: 'all blocks in any order', blockCount: 200_000, bytes: 8, isShuffled: true },
    { name: 'one block in 8 at random', blockCount: 8 * 200_000, bytes: 9.5, isShuffled: true },
    { name: 'one block in 64 at random', blockCount: 64 * 200_000, bytes: 9.5, isShuffled: true },
    { name: 'one block in 1,000 at random', blockCount: 1000 * 200_000, bytes: 10, isShuffled: true },
  ])('keeps a copy in $bytes bytes: $name', ({ blockCount, bytes, isShuffled = false }) => {
    const table = new BlockTable(blockCount);
    const random = new SeededRandom('memory');
    const order = Array.from({ length: 200_000 }, (_, i) => i * (blockCount / 200_000));
    if (isShuffled) random.shuffle(order);
    for (const [index, block] of order.entries())
      table.set(block + (blockCount > 200_000 ? random.below(4) : 0), slotOfCopy(index), 1);
    expect(table.size).toBe(200_000);
    expect(table.memoryBytes / table.size).toBeLessThan(bytes);
  });

  test('several tables together give the union of their blocks, as extents cut at the end of the volume', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uniqueArray(fc.nat(99), { maxLength: 40 }), { maxLength: 4 }),
        fc.integer({ min: 1, max: BLOCK_SIZE }),
        (sets, lastLength) => {
          const size = 99 * BLOCK_SIZE + lastLength;
          const tables = sets.map((numbers) => {
            const table = new BlockTable(100);
            for (const number of numbers) table.set(number, 5, 0);
            return table;
          });
          const bytes = new Set<number>();
          let last = -1;
          for (const { offset, length } of extentsOf(runsOf(tables, 0, 100), size)) {
            expect(offset).toBeGreaterThan(last); // ascending, and never touching the one before
            expect(length).toBeGreaterThan(0);
            last = offset + length;
            for (let at = offset; at < last; at += BLOCK_SIZE) bytes.add(at / BLOCK_SIZE);
          }
          expect(last).toBeLessThanOrEqual(size);
          expect([...bytes]).toEqual([...new Set(sets.flat())].sort((a, b) => a - b));
        },
      ),
    );
  });

  test('a full leaf is split where the blocks are, whatever comes next', () => {
    const pair = new Pair(TEBIBYTE);
    for (let i = 0; i < LEAF_ENTRIES_MAX; i++) pair.table.set(i * 2, pair.slotFor(i * 2), 1);
    for (const block of [1, LEAF_ENTRIES_MAX + 1, TEBIBYTE - 1])
      pair.table.set(block, pair.slotFor(block), 1);
    pair.expectSame([0, 2, 3, TEBIBYTE - 2]);
  });
});

describe('SlotChecksums', () => {
  test('is a map from slots to checksums', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.oneof(fc.nat(100), fc.nat(40_000), fc.nat(2 ** 22)), fc.nat(0xffff_ffff))),
        (sets) => {
          const checksums = new SlotChecksums();
          const model = new Map(sets);
          for (const [slot, checksum] of sets) checksums.set(slot, checksum);
          for (const [slot, checksum] of model) expect(checksums.get(slot)).toBe(checksum);
          expect(checksums.get(2 ** 23)).toBe(0);
        },
      ),
    );
  });
});
