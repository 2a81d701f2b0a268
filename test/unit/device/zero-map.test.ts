import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { AllocationExtent } from '../../../src/device/allocation.js';
import { ZeroMap } from '../../../src/device/zero-map.js';

const UNIT = 4096;
const PAGE = 16_384 * UNIT;

function extents(map: ZeroMap, offset: number, end: number): AllocationExtent[] {
  const all: AllocationExtent[] = [];
  for (let at = offset; at < end; ) {
    const extent = map.extentAt(at, end);
    all.push(extent);
    at += extent.length;
  }
  return all;
}

const zero = (length: number) => ({ length, zero: true });
const data = (length: number) => ({ length, zero: false });

describe('ZeroMap', () => {
  test('is of one kind at first, as one extent, however large', () => {
    expect(extents(new ZeroMap(2 ** 52, 'zero'), 0, 2 ** 52)).toEqual([zero(2 ** 52)]);
    expect(extents(new ZeroMap(1000, 'data'), 0, 1000)).toEqual([data(1000)]);
  });

  test('data takes the units that it touches, zeros those that they cover', () => {
    const map = new ZeroMap(100 * UNIT, 'zero');
    map.markData(10 * UNIT + 1, UNIT);
    expect(extents(map, 0, 100 * UNIT)).toEqual([zero(10 * UNIT), data(2 * UNIT), zero(88 * UNIT)]);
    map.markZero(10 * UNIT + 1, 3 * UNIT);
    expect(extents(map, 0, 100 * UNIT)).toEqual([zero(10 * UNIT), data(UNIT), zero(89 * UNIT)]);
  });

  test('zeros up to the end cover the last unit, which is short', () => {
    const map = new ZeroMap(3 * UNIT + 5, 'data');
    map.markZero(2 * UNIT, UNIT + 5);
    expect(extents(map, 0, 3 * UNIT + 5)).toEqual([data(2 * UNIT), zero(UNIT + 5)]);
  });

  test('an extent is cut at both ends of what was asked for', () => {
    const map = new ZeroMap(100 * UNIT, 'zero');
    map.markData(50 * UNIT, 10 * UNIT);
    expect(extents(map, 49 * UNIT + 7, 50 * UNIT + 9)).toEqual([zero(UNIT - 7), data(9)]);
  });

  test('extents go on from page to page, and full pages cost nothing', () => {
    const map = new ZeroMap(10 * PAGE, 'zero');
    map.markData(PAGE - UNIT, 5 * PAGE + 2 * UNIT);
    map.markZero(2 * PAGE, PAGE);
    expect(extents(map, 0, 10 * PAGE)).toEqual([
      zero(PAGE - UNIT),
      data(PAGE + UNIT),
      zero(PAGE),
      data(3 * PAGE + UNIT),
      zero(4 * PAGE - UNIT),
    ]);
  });

  test('extents go on from group to group, and full groups cost nothing', () => {
    const GROUP = 4096 * PAGE;
    const size = 4096 * GROUP + PAGE;
    const map = new ZeroMap(size, 'zero');
    map.markData(GROUP - PAGE, 3000 * GROUP + 2 * PAGE);
    map.markZero(2 * GROUP, 1000 * GROUP);
    map.markData(3 * GROUP, 1);
    map.markZero(3 * GROUP, UNIT);
    map.markData(size - 1, 1);
    expect(extents(map, 0, size)).toEqual([
      zero(GROUP - PAGE),
      data(GROUP + PAGE),
      zero(1000 * GROUP),
      data(1999 * GROUP + PAGE),
      zero(1095 * GROUP - UNIT),
      data(UNIT),
    ]);
  });

  test('takes the data of another map', () => {
    const map = new ZeroMap(20 * UNIT, 'zero');
    const other = new ZeroMap(20 * UNIT, 'zero');
    map.markData(0, UNIT);
    other.markData(19 * UNIT, 1);
    map.addData(other);
    expect(extents(map, 0, 20 * UNIT)).toEqual([data(UNIT), zero(18 * UNIT), data(UNIT)]);
  });

  test('behaves like one flag for each unit', () => {
    const units = 2 * 16_384 + 70;
    const position = fc.oneof(fc.nat(100), fc.integer({ min: 16_300, max: 16_500 }), fc.nat(units));
    const step = fc.record({ kind: fc.constantFrom('data', 'zero'), a: position, b: position });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const map = new ZeroMap(units * UNIT, 'zero');
        const model = new Uint8Array(units);
        for (const { kind, a, b } of steps) {
          const [from, to] = [Math.min(a, b), Math.max(a, b)];
          if (kind === 'data') map.markData(from * UNIT, (to - from) * UNIT);
          else map.markZero(from * UNIT, (to - from) * UNIT);
          model.fill(kind === 'data' ? 1 : 0, from, to);
        }
        let at = 0;
        for (const extent of extents(map, 0, units * UNIT)) {
          const end = at + extent.length / UNIT;
          expect(model.subarray(at, end).every((flag) => (flag === 0) === extent.zero)).toBe(true);
          if (at > 0) expect(model[at]).not.toBe(model[at - 1]);
          at = end;
        }
        expect(at).toBe(units);
      }),
      { numRuns: 300 },
    );
  });
});
