/** Flushes of a file: one at a time, a failure that stays, and some that nobody has asked for. */
import { describe, expect, test } from 'vitest';
import { Flushes } from '../../../src/device/flushes.ts';

const MEBIBYTE = 2 ** 20;

/** `datasync` calls that end when they are told to. */
function disk() {
  const calls: { done: () => void; fail: (error: Error) => void }[] = [];
  const datasync = () => new Promise<void>((done, fail) => void calls.push({ done, fail }));
  let due = 0;
  const flushes = new Flushes(datasync, () => {
    due++;
  });
  /** Has one become due since this was asked last? */
  const isDue = () => {
    const was = due;
    due = 0;
    return was > 0;
  };
  return { calls, flushes, isDue };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** After how many writes in a row a flush is due, if it ever is. */
function writesUntilDue(
  { flushes, isDue }: Pick<ReturnType<typeof disk>, 'flushes' | 'isDue'>,
  length: number,
  place: (i: number) => number,
  most = 10_000,
) {
  for (let i = 0; i < most; i++) {
    flushes.written(place(i) * length, length);
    if (isDue()) return i + 1;
  }
  return undefined;
}

test('one runs at a time, and those who ask meanwhile share the next', async () => {
  const { calls, flushes } = disk();
  const first = flushes.flush();
  await settle();
  const others = [flushes.flush(), flushes.flush()];
  await settle();
  expect(calls.length).toBe(1);
  calls[0]?.done();
  await first;
  await settle();
  expect(calls.length).toBe(2);
  calls[1]?.done();
  await Promise.all(others);
});

test('one that has failed stays failed', async () => {
  const { calls, flushes } = disk();
  const first = flushes.flush();
  await settle();
  calls[0]?.fail(new Error('lost'));
  await expect(first).rejects.toThrow('lost');
  await expect(flushes.flush()).rejects.toThrow('lost');
  expect(calls.length).toBe(1);
});

describe('one that nobody has asked for is due', () => {
  test('after 32 MiB of long writes, wherever they are', () => {
    expect(writesUntilDue(disk(), MEBIBYTE, (i) => (i * 7) % 1000)).toBe(32);
  });

  test('after as much of short ones that follow each other', () => {
    expect(writesUntilDue(disk(), 4096, (i) => i)).toBe(8192 + 1);
  });

  test('never after short ones at random', () => {
    expect(writesUntilDue(disk(), 16_384, (i) => (i * 7919) % 100_003)).toBeUndefined();
  });

  test('after a quarter of that of which its writer says that it will not be written again soon', () => {
    const { flushes, isDue } = disk();
    for (let i = 0; i < 7; i++) {
      flushes.written(0, MEBIBYTE);
      flushes.settling(MEBIBYTE);
    }
    // Not counted twice.
    expect(isDue()).toBe(false);
    flushes.settling(MEBIBYTE);
    expect(isDue()).toBe(true);
  });

  test('again only when as much was written since one began, and while none waits to begin', async () => {
    const { calls, flushes, isDue } = disk();
    expect(writesUntilDue({ flushes, isDue }, MEBIBYTE, (i) => i)).toBe(32);
    const first = flushes.flush();
    flushes.written(0, MEBIBYTE);
    expect(isDue()).toBe(false);
    await settle();
    expect(writesUntilDue({ flushes, isDue }, MEBIBYTE, (i) => i)).toBe(32);
    calls[0]?.done();
    await first;
  });
});
