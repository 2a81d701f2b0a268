/** Memory that threads share: its parts never overlap, and can be had again once they were given back. */
import { expect, onTestFinished, test } from 'vitest';
import { BufferPool } from '../../../src/device/buffer-pool.js';
import { SharedMemory } from '../../../src/device/shared-memory.js';

const MEBIBYTE = 2 ** 20;

function memory(): SharedMemory {
  const got = SharedMemory.get();
  if (got === undefined) throw new Error('no shared memory');
  return got;
}

/** Takes parts until there is none left, all to be given back. */
function takeAll(length: number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let part = memory().take(length); part !== undefined; part = memory().take(length)) parts.push(part);
  return parts;
}

test('there is one for the process', () => {
  expect(SharedMemory.get()).toBe(SharedMemory.get());
});

test('holds 64 MiB of parts of whole pages, none of which overlaps another', () => {
  const parts = takeAll(MEBIBYTE - 1);
  expect(parts).toHaveLength(64);
  for (const [i, part] of parts.entries()) {
    expect(part.byteLength).toBe(MEBIBYTE);
    expect(part.byteOffset % 4096).toBe(0);
    expect(memory().positionOf(part)).toBe(part.byteOffset);
    part.fill(i);
  }
  expect(parts.every((part, i) => part[0] === i && part[MEBIBYTE - 1] === i)).toBe(true);
  for (const part of parts) memory().give(part);
});

test('what was given back is there for larger parts, too', () => {
  const small = takeAll(MEBIBYTE / 4);
  expect(small).toHaveLength(256);
  // Every other one: nothing larger fits.
  for (const part of small.filter((_, i) => i % 2 === 0)) memory().give(part);
  expect(memory().take(MEBIBYTE / 2)).toBeUndefined();
  for (const part of small.filter((_, i) => i % 2 === 1)) memory().give(part);
  const large = takeAll(32 * MEBIBYTE);
  expect(large).toHaveLength(2);
  for (const part of large) memory().give(part);
});

test('a part that is given back twice, or is none, is refused', () => {
  const part = memory().take(1) ?? new Uint8Array();
  memory().give(part);
  expect(() => memory().give(part)).toThrow(/not taken/);
  expect(() => memory().give(new Uint8Array(MEBIBYTE))).toThrow(/not taken/);
});

test('a pool takes large reads from there, small ones and what is beyond it from elsewhere', () => {
  const pool = new BufferPool(MEBIBYTE);
  const small = pool.takeForRead(1000);
  expect(SharedMemory.holds(small)).toBe(false);
  const large = pool.takeForRead(MEBIBYTE);
  expect(SharedMemory.holds(large)).toBe(true);
  const others = takeAll(MEBIBYTE);
  onTestFinished(() => {
    for (const part of others) memory().give(part);
  });
  expect(others).toHaveLength(63);
  const beyond = pool.takeForRead(MEBIBYTE);
  expect(SharedMemory.holds(beyond)).toBe(false);
  for (const buffer of [small, large, beyond]) pool.give(buffer);
  const again = pool.takeForRead(MEBIBYTE);
  expect(again.byteOffset).toBe(large.byteOffset);
  pool.give(again);
});
