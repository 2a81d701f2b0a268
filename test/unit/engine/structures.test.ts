/** The data structures of the engine against the plainest ones that do the same. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryBudget } from '../../../src/copy-on-write/memory-budget.ts';
import { WriteGate, withinLimit } from '../../../src/copy-on-write/write-gate.ts';
import { AssertionError, FormatError, HoldTimeoutError, NoSpaceError } from '../../../src/errors.ts';
import { Extents } from '../../../src/store/extents.ts';
import { checkRuns, Runs } from '../../../src/store/runs.ts';
import { SpaceBudget } from '../../../src/store/space-budget.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { settle } from './hooks.ts';

describe('Extents', () => {
  const step = fc.record({
    kind: fc.constantFrom('add', 'remove', 'take'),
    start: fc.nat(60),
    length: fc.nat(12),
  });

  test('are a set of numbers', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const extents = new Extents();
        const model = new Set<number>();
        for (const { kind, start, length } of steps) {
          const range = Array.from({ length }, (_, i) => start + i);
          if (kind === 'take') {
            const lowest = [...model].sort((a, b) => a - b).slice(0, length);
            const taken = extents.take(length);
            if (length > model.size) expect(taken).toBeUndefined();
            else {
              const numbers = taken?.flatMap((extent) =>
                Array.from({ length: extent.length }, (_, i) => extent.start + i),
              );
              expect(numbers).toEqual(lowest);
              for (const number of lowest) model.delete(number);
            }
          } else if (kind === 'add' && range.some((number) => model.has(number))) {
            expect(() => extents.add(start, length)).toThrow(AssertionError);
          } else if (kind === 'remove' && !range.every((number) => model.has(number))) {
            expect(() => extents.remove(start, length)).toThrow(AssertionError);
          } else {
            extents[kind === 'add' ? 'add' : 'remove'](start, length);
            for (const number of range) model[kind === 'add' ? 'add' : 'delete'](number);
          }
          expect(extents.total).toBe(model.size);
          if (length > 0) {
            expect(extents.overlaps(start, length)).toBe(range.some((n) => model.has(n)));
            expect(extents.contains(start, length)).toBe(range.every((n) => model.has(n)));
          }
          expect(extents.has(start)).toBe(model.has(start));
        }
        const list = [...extents];
        expect(list.reduce((sum, { length }) => sum + length, 0)).toBe(model.size);
        list.slice(1).forEach((extent, i) => {
          const before = list[i];
          if (before !== undefined) expect(extent.start).toBeGreaterThan(before.start + before.length);
        });
      }),
    );
  });
});

describe('Runs', () => {
  const pieces = fc.array(fc.record({ gap: fc.nat(3), blocks: fc.integer({ min: 1, max: 5 }) }), {
    minLength: 1,
    maxLength: 20,
  });

  test('map every byte of the file to its place and back off when cut', () => {
    fc.assert(
      fc.property(pieces, fc.nat(), (list, cutSeed) => {
        const runs = new Runs([]);
        const map: number[] = []; // block of the file → block of the device
        let next = 1;
        for (const { gap, blocks } of list) {
          const start = next + gap;
          next = start + blocks;
          runs.append([{ volumeOffset: start * BLOCK_SIZE, length: blocks * BLOCK_SIZE }]);
          for (let i = 0; i < blocks; i++) map.push(start + i);
        }
        const check = (length: number) => {
          expect(runs.size).toBe(length * BLOCK_SIZE);
          for (let i = 0; i < length; i++)
            expect(runs.locate(i * BLOCK_SIZE + 77)).toBe((map[i] ?? 0) * BLOCK_SIZE + 77);
          const spread = runs
            .pieces(0, length * BLOCK_SIZE)
            .flatMap((piece) =>
              Array.from(
                { length: piece.length / BLOCK_SIZE },
                (_, i) => piece.volumeOffset / BLOCK_SIZE + i,
              ),
            );
          expect(spread).toEqual(map.slice(0, length));
          expect(() => checkRuns(runs.list, (next + 1) * BLOCK_SIZE)).not.toThrow();
        };
        check(map.length);
        const keep = cutSeed % (map.length + 1);
        const cut = runs
          .truncate(keep * BLOCK_SIZE)
          .flatMap((piece) =>
            Array.from({ length: piece.length / BLOCK_SIZE }, (_, i) => piece.volumeOffset / BLOCK_SIZE + i),
          );
        expect(cut).toEqual(map.slice(keep));
        check(keep);
        expect(() => runs.locate(keep * BLOCK_SIZE)).toThrow(AssertionError);
      }),
    );
  });

  test('read from a list are refused unless they cover the file once, on the device', () => {
    const run = (volume: number, file: number, length: number) => ({
      volumeOffset: volume * BLOCK_SIZE,
      fileOffset: file * BLOCK_SIZE,
      length: length * BLOCK_SIZE,
    });
    const size = 100 * BLOCK_SIZE;
    checkRuns([run(5, 0, 2), run(1, 2, 4)], size);
    const bad = [
      [run(5, 1, 2)],
      [run(5, 0, 2), run(1, 3, 1)],
      [run(5, 0, 2), run(6, 2, 1)],
      [run(99, 0, 2)],
      [run(5, 0, 0)],
      [{ ...run(5, 0, 2), length: 5 }],
      [{ ...run(5, 0, 2), volumeOffset: 5 }],
    ];
    for (const runs of bad) expect(() => checkRuns(runs, size)).toThrow(FormatError);
  });
});

describe('SpaceBudget', () => {
  test('takes what the limit allows, nothing when it does not, and anything without a limit', () => {
    let maximum = 100;
    const budget = new SpaceBudget(() => maximum);
    budget.take(60);
    expect(() => budget.take(41)).toThrow(NoSpaceError);
    expect(budget.taken).toBe(60);
    budget.take(40);
    expect(budget.available).toBe(0);
    maximum = 50;
    expect(budget.available).toBe(0);
    budget.giveBack(70);
    expect(budget.available).toBe(20);
    maximum = 0;
    expect(budget.available).toBe(Number.POSITIVE_INFINITY);
    budget.take(1e15);
    expect(() => budget.giveBack(2e15)).toThrow(AssertionError);
  });
});

describe('MemoryBudget', () => {
  test('serves in order, never beyond the limit unless a single request is larger', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 30 }),
        fc.infiniteStream(fc.nat()),
        async (lengths, choices) => {
          const limit = 10;
          const budget = new MemoryBudget(limit);
          const served: number[] = [];
          const inUse: number[] = [];
          for (const [index, length] of lengths.entries())
            void Promise.resolve(budget.acquire(length)).then(() => {
              served.push(index);
              inUse.push(length);
            });
          await settle();
          while (inUse.length > 0) {
            const sum = inUse.reduce((total, length) => total + length, 0);
            expect(budget.usedBytes).toBe(sum);
            expect(sum <= limit || inUse.length === 1).toBe(true);
            const [length = 0] = inUse.splice((choices.next().value ?? 0) % inUse.length, 1);
            budget.release(length);
            await Promise.resolve();
            await Promise.resolve();
            await Promise.resolve();
          }
          expect(served).toEqual(lengths.map((_, index) => index));
          expect(budget.usedBytes).toBe(0);
        },
      ),
      { numRuns: 50 },
    );
  });
});

/** A clock that the test moves. */
function manualClock() {
  let now = 0;
  const timers = new Set<{ at: number; action: () => void }>();
  return {
    now: () => now,
    monotonic: () => now,
    after: (milliseconds: number, action: () => void) => {
      const timer = { at: now + milliseconds, action };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    pass(milliseconds: number) {
      now += milliseconds;
      for (const timer of [...timers]) {
        if (timer.at > now) continue;
        timers.delete(timer);
        timer.action();
      }
    },
    get pending() {
      return timers.size;
    },
  };
}

describe('WriteGate', () => {
  test('lets writes pass, queues them while held, and releases them in the order in which they came', async () => {
    const gate = new WriteGate(manualClock());
    expect(gate.enter()).toBe(0);
    gate.leave(0);
    await gate.hold(1000);
    const passed: number[] = [];
    for (let i = 0; i < 10; i++) void Promise.resolve(gate.enter()).then(() => passed.push(i));
    await settle();
    expect(passed).toEqual([]);
    expect(gate.queued).toBe(10);
    gate.release();
    await settle();
    expect(passed).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(gate.queued).toBe(0);
  });

  test('is held only once the writes inside have left', async () => {
    const clock = manualClock();
    const gate = new WriteGate(clock);
    gate.enter();
    gate.enter();
    let held = false;
    const holding = gate.hold(1000).then(() => {
      held = true;
    });
    gate.leave(0);
    await settle();
    expect(held).toBe(false);
    gate.leave(0);
    await holding;
    expect(held).toBe(true);
    expect(clock.pending, 'no timer is left behind').toBe(0);
  });

  test('opens again, in order, when the limit passes first', async () => {
    const clock = manualClock();
    const gate = new WriteGate(clock);
    gate.enter();
    const holding = gate.hold(1000);
    const passed: number[] = [];
    for (let i = 0; i < 3; i++) void Promise.resolve(gate.enter()).then(() => passed.push(i));
    clock.pass(999);
    await settle();
    expect(passed).toEqual([]);
    clock.pass(1);
    await expect(holding).rejects.toThrow(HoldTimeoutError);
    await settle();
    expect(passed).toEqual([0, 1, 2]);
    for (let i = 0; i < 4; i++) gate.leave(0);
    await gate.hold(1000); // usable as before
    gate.release();
  });

  test('holds again when a write leaves after a hold that timed out', async () => {
    const clock = manualClock();
    const gate = new WriteGate(clock);
    gate.enter();
    const first = gate.hold(10);
    clock.pass(10);
    await expect(first).rejects.toThrow(HoldTimeoutError);
    const second = gate.hold(10);
    gate.leave(0);
    await second;
    gate.release();
  });

  test('tells when all who were inside have left, while others come and go', async () => {
    const gate = new WriteGate(manualClock());
    const old = [gate.enter(), gate.enter()];
    const ended: string[] = [];
    const first = gate.whenLeft().then(() => ended.push('first'));
    await settle();
    const next = gate.enter();
    const second = gate.whenLeft().then(() => ended.push('second'));
    for (const shift of old) {
      await settle();
      expect(ended).toEqual([]);
      gate.leave(await shift);
    }
    await first;
    await settle();
    expect(ended).toEqual(['first']);
    const last = gate.enter();
    gate.leave(await next);
    await second;
    expect(ended).toEqual(['first', 'second']);
    gate.leave(await last);
    await gate.whenLeft();
    await gate.hold(1000);
  });

  test('refuses everybody, queued or new, once it is shut', async () => {
    const gate = new WriteGate(manualClock());
    await gate.hold(undefined);
    const queued = gate.enter();
    const reason = new Error('shut by the test');
    gate.shut(reason);
    gate.release();
    await expect(queued).rejects.toBe(reason);
    await expect(gate.enter()).rejects.toBe(reason);
    expect(gate.failure).toBe(reason);
  });

  test('never counts below zero and is never held twice', async () => {
    const gate = new WriteGate(manualClock());
    expect(() => gate.leave(0)).toThrow(AssertionError);
    await gate.hold(1);
    await expect(gate.hold(1)).rejects.toThrow(AssertionError);
  });

  test('a limited wait passes on values and errors, and leaves no timer', async () => {
    const clock = manualClock();
    expect(await withinLimit(clock, 5, Promise.resolve(7), 'x')).toBe(7);
    await expect(withinLimit(clock, 5, Promise.reject(new Error('own')), 'x')).rejects.toThrow('own');
    expect(clock.pending).toBe(0);
  });
});
