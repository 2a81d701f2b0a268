/** What is known of a file's zeros while several things happen to it at once. The search for holes is the test's. */
import { describe, expect, test } from 'vitest';
import type { AllocationExtent } from '../../../src/device/allocation.js';
import { FileAllocation } from '../../../src/device/file-allocation.js';
import { ZeroMap } from '../../../src/device/zero-map.js';

const UNIT = 4096;
const SIZE = 10 * UNIT;

/** A search that ends when the test says what it has found. */
function search() {
  let found: (map: ZeroMap | undefined) => void = () => undefined;
  let searches = 0;
  const allocation = new FileAllocation(() => {
    searches++;
    return new Promise((resolve) => {
      found = resolve;
    });
  });
  return {
    allocation,
    end: (kind: 'zero' | 'data' | undefined) => found(kind && new ZeroMap(SIZE, kind)),
    count: () => searches,
  };
}

function extents(allocation: FileAllocation): AllocationExtent[] {
  const all: AllocationExtent[] = [];
  for (let at = 0; at < SIZE; ) {
    const extent = allocation.extentAt(at, SIZE);
    all.push(extent);
    at += extent.length;
  }
  return all;
}

const zero = (units: number) => ({ length: units * UNIT, zero: true });
const data = (units: number) => ({ length: units * UNIT, zero: false });

describe('FileAllocation', () => {
  test('knows nothing before it is asked, and searches once', async () => {
    const { allocation, end, count } = search();
    allocation.written(0, UNIT);
    expect([extents(allocation), count()]).toEqual([[data(10)], 0]);
    const both = [allocation.ready(SIZE), allocation.ready(SIZE)];
    expect(extents(allocation)).toEqual([data(10)]);
    end('zero');
    await Promise.all(both);
    await allocation.ready(SIZE);
    expect([extents(allocation), count()]).toEqual([[zero(10)], 1]);
  });

  test('where nobody can tell, knows what is zeroed from then on', async () => {
    const { allocation, end } = search();
    const ready = allocation.ready(SIZE);
    end(undefined);
    await ready;
    expect(extents(allocation)).toEqual([data(10)]);
    allocation.zeroed(allocation.zeroing(UNIT, 2 * UNIT));
    expect(extents(allocation)).toEqual([data(1), zero(2), data(7)]);
  });

  test('a write that begins before the search, and one that ends after it, are data', async () => {
    const { allocation, end } = search();
    allocation.written(0, 1); // begins
    const ready = allocation.ready(SIZE);
    allocation.written(2 * UNIT, 1); // begins
    allocation.written(0, 1); // ends
    allocation.written(4 * UNIT, 1); // begins
    end('zero');
    await ready;
    expect(extents(allocation)).toEqual([data(1), zero(1), data(1), zero(1), data(1), zero(5)]);
    allocation.written(2 * UNIT, 1); // ends
    allocation.written(4 * UNIT, 1); // ends
    allocation.written(6 * UNIT, 1); // of one that began before anybody asked
    expect(extents(allocation).at(-1)).toEqual(zero(3));
    expect(extents(allocation).filter((extent) => !extent.zero)).toHaveLength(4);
  });

  test('what is zeroed during the search and written again is data; what is found as data stays so', async () => {
    const { allocation, end } = search();
    const ready = allocation.ready(SIZE);
    allocation.zeroed(allocation.zeroing(0, 4 * UNIT));
    allocation.written(UNIT, UNIT);
    end('zero');
    await ready;
    expect(extents(allocation)).toEqual([zero(1), data(1), zero(8)]);

    const second = search();
    const found = second.allocation.ready(SIZE);
    second.allocation.zeroed(second.allocation.zeroing(0, SIZE));
    second.end('data');
    await found;
    expect(extents(second.allocation)).toEqual([data(10)]);
  });

  test('a range counts as zero only when that is done, and not if a write touched it meanwhile', async () => {
    const { allocation, end } = search();
    const ready = allocation.ready(SIZE);
    end('data');
    await ready;
    const first = allocation.zeroing(0, 2 * UNIT);
    const second = allocation.zeroing(2 * UNIT, 2 * UNIT);
    const third = allocation.zeroing(4 * UNIT, 2 * UNIT);
    expect(extents(allocation)).toEqual([data(10)]);
    allocation.written(3 * UNIT, 10);
    allocation.zeroed(first);
    allocation.zeroed(second);
    allocation.abandoned(third);
    expect(extents(allocation)).toEqual([zero(2), data(8)]);
  });

  test('a new size, also during the search, leaves nothing known', async () => {
    const { allocation, end, count } = search();
    const ready = allocation.ready(SIZE);
    const zeroing = allocation.zeroing(0, SIZE);
    allocation.resized();
    end('zero');
    await ready;
    allocation.zeroed(zeroing);
    expect([extents(allocation), count()]).toEqual([[data(10)], 1]);
    const again = allocation.ready(SIZE);
    expect(extents(allocation)).toEqual([data(10)]);
    end('zero');
    await again;
    expect([extents(allocation), count()]).toEqual([[zero(10)], 2]);
  });

  test('holes are known however large the file is', async () => {
    const allocation = new FileAllocation(async () => new ZeroMap(2 ** 52, 'zero'));
    await allocation.ready(2 ** 52);
    expect(allocation.extentAt(0, 2 ** 52)).toEqual({ length: 2 ** 52, zero: true });
  });
});
