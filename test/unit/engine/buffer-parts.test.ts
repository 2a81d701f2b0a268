/** Parts of the write buffer on their own. */
import { describe, expect, test } from 'vitest';
import { BufferRoom } from '../../../src/copy-on-write/buffer-room.ts';
import { Drains } from '../../../src/copy-on-write/drains.ts';
import { OverlapIndex } from '../../../src/copy-on-write/overlap-index.ts';
import { TurnCredit } from '../../../src/copy-on-write/turn-credit.ts';
import { systemEnvironment } from '../../../src/environment.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { settle } from './hooks.ts';

const noHurry = () => () => undefined;

const MEBIBYTE = 2 ** 20;

describe('the index of ranges', () => {
  test('finds what a look at every range finds, oldest first', () => {
    const random = new SeededRandom('index');
    const index = new OverlapIndex<{ offset: number; end: number; sequence: number }>();
    const all: { offset: number; end: number; sequence: number }[] = [];
    // Far apart enough for stretches to share lists, and some longer than all lists together.
    const drawn = () => {
      const offset = random.below(random.pick([2 ** 18, 2 ** 30]));
      return { offset, end: offset + 1 + random.below(random.pick([10, 70_000, 2 ** 20, 2 ** 28])) };
    };
    for (let sequence = 1; sequence <= 400; sequence++) {
      const { offset, end } = drawn();
      const item = { offset, end: Math.min(end, offset + 2 ** 25), sequence };
      index.add(item);
      all.push(item);
      if (random.chance(0.5)) index.remove(all.splice(random.below(all.length), 1)[0] ?? item);
      const asked = drawn();
      expect(index.overlapping(asked.offset, asked.end)).toEqual(
        all.filter((other) => other.offset < asked.end && other.end > asked.offset),
      );
    }
    for (const item of all) index.remove(item);
    expect(index.isEmpty).toBe(true);
    expect(index.overlapping(0, 2 ** 40)).toEqual([]);
  });
});

describe('room in the buffer', () => {
  test('is usually a share of the whole, all of it when nothing is passed on', () => {
    const room = new BufferRoom(64 * MEBIBYTE, noHurry);
    expect(room.tryAcquire(16 * MEBIBYTE)).toBe(true);
    expect(room.tryAcquire(1)).toBe(false);
    room.level = 'all';
    expect(room.tryAcquire(48 * MEBIBYTE)).toBe(true);
    expect(room.tryAcquire(1)).toBe(false);
  });

  test('is that of a few writes before a snapshot', () => {
    const room = new BufferRoom(64 * MEBIBYTE, noHurry);
    room.level = 'low';
    expect(room.tryAcquire(32 * 1024)).toBe(true);
    expect(room.tryAcquire(1)).toBe(false);
  });

  test('gets less step by step: a 16th of what becomes free is given out again', async () => {
    const room = new BufferRoom(64 * MEBIBYTE, noHurry);
    room.level = 'all';
    expect(room.tryAcquire(32 * MEBIBYTE)).toBe(true);
    room.level = 'usual';
    let served = 0;
    for (let i = 0; i < 8; i++) void room.acquire(MEBIBYTE / 4).then(() => served++);
    room.release(4 * MEBIBYTE);
    await settle();
    expect(served).toBe(1);
    room.release(8 * MEBIBYTE);
    await settle();
    expect(served).toBe(3);
    expect(room.usedBytes).toBe(20.75 * MEBIBYTE);
  });

  test('is given in the order of asking, to one larger than all when nothing else is there', async () => {
    const room = new BufferRoom(MEBIBYTE, noHurry);
    expect(room.tryAcquire(4 * MEBIBYTE)).toBe(true);
    const served: string[] = [];
    const asked = ['a', 'b'].map((name) => room.acquire(100).then(() => served.push(name)));
    expect(room.tryAcquire(1), 'not past those who wait').toBe(false);
    room.release(4 * MEBIBYTE);
    await Promise.all(asked);
    expect(served).toEqual(['a', 'b']);
  });

  test('is everybody’s once it was opened', async () => {
    const room = new BufferRoom(0, noHurry);
    expect(room.tryAcquire(1)).toBe(true);
    const waiting = room.acquire(10);
    room.open();
    await waiting;
    expect(room.tryAcquire(MEBIBYTE)).toBe(true);
  });
});

test('a write that has been made takes a turn only while turns are short', async () => {
  const turns = new TurnCredit(systemEnvironment.clock);
  expect(turns.spendIfShort(MEBIBYTE)).toBeUndefined();
  turns.short = true;
  expect(turns.spendIfShort(4096)).toBeUndefined();
  const turn = turns.spendIfShort(16_384);
  expect(turn).toBeDefined();
  await turn;
  expect(turns.spendIfShort(4096)).toBeUndefined();
});

test('who waits for changes waits for those there were, whatever their order', async () => {
  let hurries = 0;
  const drains = new Drains(() => {
    hurries++;
    return () => hurries--;
  });
  const ended: string[] = [];
  void drains.wait(3, 3).then(() => ended.push('up to 3'));
  void drains.wait(5, 5).then(() => ended.push('up to 5'));
  for (const sequence of [5, 2, 3]) drains.settled(sequence);
  await settle();
  expect(ended).toEqual([]);
  drains.settled(1);
  await settle();
  expect(ended).toEqual(['up to 3']);
  drains.settled(4);
  await settle();
  expect(ended).toEqual(['up to 3', 'up to 5']);
  expect(hurries).toBe(0);
});
