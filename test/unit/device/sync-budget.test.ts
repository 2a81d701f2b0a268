import { describe, expect, test } from 'vitest';
import { SyncBudget } from '../../../src/device/sync-budget.js';

/** A budget and a clock that `call` moves on. */
function budget() {
  let now = 0;
  const clock = { now: () => 0, monotonic: () => now, after: () => () => undefined };
  const it = new SyncBudget({ largest: 1000, slow: 0.1, clock });
  /** Makes a call that would take so many milliseconds; returns whether it was synchronous. */
  const call = (milliseconds: number, bytes = 1): boolean => {
    if (!it.allows(bytes)) return false;
    const started = it.started();
    now += milliseconds;
    it.finished(started);
    return true;
  };
  /** How many calls go to the pool before one is synchronous; that one is slow. */
  const rest = (): number => {
    for (let calls = 0; ; calls += 1) if (call(0.2)) return calls;
  };
  return { it, call, rest };
}

describe('SyncBudget', () => {
  test('makes small calls synchronously, large ones not', () => {
    const { call } = budget();
    expect(call(0, 1000)).toBe(true);
    expect(call(0, 1001)).toBe(false);
  });

  test('says of a call whether it may be made at once, as often as it is asked', () => {
    const { it, call } = budget();
    expect(it.admits(1000)).toBe(true);
    expect(it.admits(1001)).toBe(false);
    call(0.2);
    expect(it.admits(1)).toBe(true);
    call(0.2);
    for (let i = 0; i < 100; i++) expect(it.admits(1)).toBe(false);
  });

  test('admits nothing before the turn of the event loop that is due', async () => {
    const { it, call } = budget();
    for (let calls = 0; calls < 17; calls += 1) call(0.06);
    expect(it.admits(1)).toBe(false);
    await it.turn();
    expect(it.admits(1)).toBe(true);
  });

  test('wants a turn of the event loop after a millisecond of work', async () => {
    const { it, call } = budget();
    for (let calls = 0; calls < 16; calls += 1) call(0.06);
    expect(it.ready).toBe(true);
    call(0.06);
    expect(it.ready).toBe(false);
    let turned = false;
    setImmediate(() => {
      turned = true;
    });
    await Promise.all([it.turn(), it.turn()]);
    expect(turned).toBe(true);
    expect(it.ready).toBe(true);
  });

  test('makes nothing of a slow call between fast ones', () => {
    const { call } = budget();
    for (let calls = 0; calls < 100; calls += 1) expect(call(calls % 2 === 0 ? 0.2 : 0.01)).toBe(true);
  });

  test('backs off further each time a trial is slow', () => {
    const { call, rest } = budget();
    expect(call(0.2)).toBe(true);
    expect(call(0.2)).toBe(true);
    expect(Array.from({ length: 11 }, rest)).toEqual([
      16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096,
    ]);
  });

  test('a fast trial ends that', () => {
    const { call, rest } = budget();
    call(0.2);
    call(0.2);
    rest();
    for (let calls = 0; calls < 32; calls += 1) expect(call(0)).toBe(false);
    expect(call(0.01)).toBe(true);
    expect(call(0.2)).toBe(true);
    expect(call(0.2)).toBe(true);
    expect(rest()).toBe(16);
  });
});
