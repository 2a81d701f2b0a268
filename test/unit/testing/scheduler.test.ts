import { describe, expect, test } from 'vitest';
import { DeadlockError, Scheduler, type SchedulerOptions, SeededRandom } from '../../../src/testing/index.js';

const scheduler = (seed: string | number = 1, options: SchedulerOptions = {}) =>
  new Scheduler(new SeededRandom(seed), options);

const operation = <T>(effect: () => T, offset = 0, settle?: () => void) => ({
  kind: 'test',
  target: 'nowhere',
  offset,
  length: 1,
  effect,
  ...(settle === undefined ? {} : { settle }),
});

/** Submits operations and tells the order in which they took effect and completed. */
async function orderOf(seed: number): Promise<{ effects: number[]; completions: number[]; hash: number }> {
  const world = scheduler(seed);
  const effects: number[] = [];
  const completions: number[] = [];
  await world.run(() =>
    Promise.all(
      Array.from({ length: 8 }, async (_, index) => {
        await world.submit(operation(() => effects.push(index), index));
        completions.push(index);
      }),
    ),
  );
  return { effects, completions, hash: world.traceHash };
}

describe('Scheduler', () => {
  test('completes operations in an order that is a function of the seed', async () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++) {
      const first = await orderOf(seed);
      expect(await orderOf(seed)).toEqual(first);
      orders.add(first.completions.join());
    }
    expect(orders.size).toBeGreaterThan(15);
  });

  test('effects and completions have orders of their own', async () => {
    const orders = await Promise.all(Array.from({ length: 10 }, (_, seed) => orderOf(seed)));
    expect(orders.some(({ effects, completions }) => effects.join() !== completions.join())).toBe(true);
  });

  test('different runs have different trace hashes', async () => {
    const hashes = new Set<number>();
    for (let seed = 0; seed < 50; seed++) hashes.add((await orderOf(seed)).hash);
    expect(hashes.size).toBe(50);
  });

  test('every reaction to a completion runs before the next step', async () => {
    const world = scheduler(1, { stragglers: 0 });
    const events: string[] = [];
    const worker = async (name: string) => {
      await world.submit(operation(() => undefined));
      for (let hop = 0; hop < 200; hop++) await undefined;
      queueMicrotask(() => events.push(`${name} after 200 hops`));
      await world.submit(operation(() => events.push(`${name} effect`)));
    };
    await world.run(() => worker('a'));
    expect(events).toEqual(['a after 200 hops', 'a effect']);
    // With two of them, no effect may come between a completion and the end of its reactions.
    events.length = 0;
    let isReacting = false;
    const reactor = async () => {
      for (let round = 0; round < 20; round++) {
        await world.submit(operation(() => expect(isReacting).toBe(false)));
        isReacting = true;
        for (let hop = 0; hop < 50; hop++) await undefined;
        isReacting = false;
      }
    };
    await world.run(() => Promise.all([reactor(), reactor(), reactor()]));
  });

  test('hands on results, errors of the effect, and errors of settling', async () => {
    const world = scheduler();
    await world.run(async () => {
      expect(await world.submit(operation(() => 42))).toBe(42);
      const failing = operation(() => {
        throw new Error('effect');
      });
      await expect(world.submit(failing)).rejects.toThrow('effect');
      const unsettled = operation(
        () => 1,
        0,
        () => {
          throw new Error('settle');
        },
      );
      await expect(world.submit(unsettled)).rejects.toThrow('settle');
    });
    await expect(world.run(() => Promise.reject(new Error('task')))).rejects.toThrow('task');
    await expect(
      world.run(() => {
        throw new Error('at once');
      }),
    ).rejects.toThrow('at once');
  });

  test('time passes with operations, and jumps to the next timer when nothing else is left', async () => {
    const world = scheduler();
    const { clock } = world;
    await world.run(async () => {
      const before = clock.monotonic();
      await world.submit(operation(() => undefined));
      expect(clock.monotonic()).toBeGreaterThan(before);
      const start = clock.monotonic();
      const wall = clock.now();
      await new Promise<void>((resolve) => clock.after(3_600_000, resolve));
      expect(clock.monotonic() - start).toBe(3_600_000);
      expect(clock.now() - wall).toBe(3_600_000);
    });
  });

  test('timers fire in the order of their times, then of their setting, unless they are cancelled', async () => {
    const world = scheduler();
    const fired: string[] = [];
    await world.run(async () => {
      world.clock.after(5, () => fired.push('5 first'));
      world.clock.after(1, () => fired.push('1'));
      const cancel = world.clock.after(3, () => fired.push('never'));
      world.clock.after(5, () => fired.push('5 second'));
      world.clock.after(Number.NaN, () => fired.push('NaN is soon'));
      world.clock.after(-1, () => fired.push('the past is soon'));
      cancel();
      cancel();
      await new Promise<void>((resolve) => world.clock.after(10, resolve));
    });
    expect(fired).toEqual(['NaN is soon', 'the past is soon', '1', '5 first', '5 second']);
  });

  test('the wall clock may be set back, the monotonic one goes on', () => {
    const { clock } = scheduler();
    const before = clock.now();
    clock.adjustWallClock(-5000);
    expect(clock.now()).toBe(before - 5000);
    expect(clock.monotonic()).toBe(0);
  });

  test('a deadlock names what completed last and what never will', async () => {
    const world = scheduler('seven');
    const stuck = world.run(async () => {
      await world.submit(operation(() => undefined, 4096));
      void world.submit({ ...operation(() => undefined, 512), delayMicroseconds: Infinity });
      await new Promise(() => undefined);
    });
    await expect(stuck).rejects.toThrow(DeadlockError);
    await expect(stuck).rejects.toThrow(
      /deadlock.*\n.*seed seven.*\n[\s\S]*never completing: test nowhere 512\+1[\s\S]*4096\+1/,
    );
  });

  test('a run without end is given up', async () => {
    const world = scheduler(1, { stepsMax: 1000 });
    const endless = world.run(async () => {
      for (;;) await world.submit(operation(() => undefined));
    });
    await expect(endless).rejects.toThrow('not done after 1000 steps');
  });

  test('stops after a number of steps, and a crash leaves what was pending unresolved for ever', async () => {
    const world = scheduler();
    const happened: string[] = [];
    const outcome = await world.runSteps(async () => {
      world.clock.after(1e9, () => happened.push('timer'));
      for (;;) {
        await world.submit(operation(() => happened.push('effect')));
        happened.push('completion');
      }
    }, 20);
    expect(outcome.finished).toBe(false);
    expect(world.steps).toBe(20);
    const before = happened.length;
    const generation = world.generation;
    world.crash();
    expect(world.generation).toBe(generation + 1);
    expect(world.pendingCount).toBe(0);
    await world.run(() => world.submit(operation(() => undefined)));
    expect(happened.length).toBe(before);
    expect(happened).not.toContain('timer');
  });

  test('tells whether a task of few steps finished', async () => {
    const world = scheduler();
    expect(await world.runSteps(async () => 'value', 0)).toEqual({ finished: true, value: 'value' });
  });

  test('pauses the task for some steps, or until nothing is left to do', async () => {
    const world = scheduler(1, { stragglers: 0 });
    await world.run(async () => {
      let completed = 0;
      for (let index = 0; index < 50; index++) {
        void world.submit(operation(() => undefined)).then(() => completed++);
      }
      const start = world.steps;
      await world.pause(10);
      expect(world.steps).toBe(start + 10);
      expect(completed).toBeGreaterThan(0);
      expect(completed).toBeLessThan(11);
      await world.pause(Infinity);
      expect(completed).toBe(50);
    });
  });

  test('is interrupted between two steps, and goes on as without that', async () => {
    const run = async (interruptions: readonly number[]) => {
      const world = scheduler(7);
      const steps: number[] = [];
      await world.runSteps(async () => {
        for (const after of interruptions)
          world.interruptAfter(after, async () => {
            await new Promise((resolve) => setImmediate(resolve));
            steps.push(world.steps);
          });
        for (let index = 0; index < 20; index++) await world.submit(operation(() => undefined, index));
      }, 15);
      return { steps, hash: world.traceHash };
    };
    const { hash } = await run([]);
    // Of two at the same moment one comes after the other; one that would come too late does not.
    expect(await run([9, 4, 100, 4])).toEqual({ steps: [4, 4, 9], hash });
  });

  test('runs one task at a time', async () => {
    const world = scheduler();
    const first = world.run(() => world.submit(operation(() => undefined)));
    await expect(world.runSteps(async () => undefined, 1)).rejects.toThrow('runs a task already');
    await first;
  });

  test('stragglers are overtaken by many', async () => {
    const world = scheduler(3, { stragglers: 0.05 });
    const order: number[] = [];
    await world.run(() =>
      Promise.all(
        Array.from({ length: 40 }, async (_, index) => {
          for (let round = 0; round < 10; round++) await world.submit(operation(() => undefined));
          order.push(index);
        }),
      ),
    );
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
  });

  test('by itself, without run, when asked to', async () => {
    const world = scheduler().autorun();
    expect(await world.submit(operation(() => 1))).toBe(1);
    const both = [world.submit(operation(() => 2)), world.submit(operation(() => 3))];
    expect(await Promise.all(both)).toEqual([2, 3]);
    await new Promise<void>((resolve) => world.clock.after(1000, resolve));
  });
});
