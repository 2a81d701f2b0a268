/** Memory of all connections: bounded, in order, and never kept by a client that stalls. */
import { describe, expect, test } from 'vitest';
import { type Holder, MemoryLimit } from '../../../src/nbd/server/limits.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';

class Client implements Holder {
  resumed = 0;
  cut: string | undefined;
  stalled: number | undefined;

  resume(): void {
    this.resumed++;
  }

  cutOff(reason: string): void {
    this.cut = reason;
  }

  stalledSince(): number | undefined {
    return this.stalled;
  }
}

function setUp() {
  const clock = new SimulatedClock();
  const memory = new MemoryLimit(100, 1000, clock);
  const [first, second, third] = [new Client(), new Client(), new Client()];
  for (const client of [first, second, third]) memory.add(client);
  const pass = (milliseconds: number) => {
    clock.advance(milliseconds * 1000);
    while (clock.fireDue());
  };
  return { clock, memory, first, second, third, pass };
}

describe('MemoryLimit', () => {
  test('lets who waits longest go first', async () => {
    const { memory, first, second, third } = setUp();
    expect(memory.tryTake(first, 90)).toBe(true);
    expect(memory.tryTake(second, 50)).toBe(false);
    // It would fit, but somebody waits.
    expect(memory.tryTake(third, 5)).toBe(false);
    memory.give(90);
    await Promise.resolve();
    expect([second.resumed, third.resumed]).toEqual([1, 0]);
    expect(memory.tryTake(second, 50)).toBe(true);
    await Promise.resolve();
    expect(third.resumed).toBe(1);
    expect(memory.tryTake(third, 5)).toBe(true);
    expect(memory.usedBytes).toBe(55);
  });

  test('lets one request go on however large it is', () => {
    const { memory, first } = setUp();
    expect(memory.tryTake(first, 1000)).toBe(true);
  });

  test('cuts off those whose peer has stalled, once others wait', () => {
    const { clock, memory, first, second, third, pass } = setUp();
    memory.tryTake(first, 60);
    memory.tryTake(second, 40);
    first.stalled = clock.monotonic();
    pass(5000);
    expect(first.cut).toBeUndefined();
    memory.tryTake(third, 10);
    pass(1000);
    expect(first.cut).toMatch(/stalled/);
    expect(second.cut).toBeUndefined();
  });

  test('forgets who is gone, and leaves no timer behind', async () => {
    const { clock, memory, first, second, third } = setUp();
    memory.tryTake(first, 100);
    memory.tryTake(second, 10);
    memory.tryTake(third, 10);
    memory.give(100);
    memory.remove(second);
    await Promise.resolve();
    expect(third.resumed).toBeGreaterThan(0);
    expect(memory.tryTake(third, 10)).toBe(true);
    expect(clock.timerCount).toBe(0);
  });
});
