import { expect, test } from 'vitest';
import type { BlockDevice } from '../../../src/device/block-device.ts';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { exportRaw } from '../../../src/export/raw.ts';
import { expectSame, MEBIBYTE, World } from '../engine/world.ts';

/** Zeros but for some bytes in the second and, behind a multiple of 4 KiB, the last mebibyte. */
async function snapshotOf(size: number) {
  const world = await World.create({ size, filled: false });
  await world.write(MEBIBYTE + 5000, world.random.fill(new Uint8Array(9000)));
  await world.write(size - 3, new Uint8Array([1, 2, 3]));
  const snapshot = await world.snapshot();
  await world.writeRandomly(5);
  return { snapshot, bytes: world.model.of(snapshot.id) };
}

/** A device that says nothing of its own but what every device can. */
const plain = (inner: MemoryDevice): BlockDevice => ({
  size: inner.size,
  writable: true,
  name: 'plain',
  read: (offset, target) => inner.read(offset, target),
  write: (offset, source) => inner.write(offset, source),
  flush: () => inner.flush(),
  close: () => inner.close(),
  [Symbol.asyncDispose]: () => inner.close(),
});

test('a blank device gets what is not zero, in units of 4 KiB', async () => {
  const { snapshot, bytes } = await snapshotOf(4 * MEBIBYTE + 777);
  const content = new MemoryContent(snapshot.size);
  const written = await exportRaw(snapshot, new MemoryDevice(content), { isBlank: true });
  expectSame(content.bytes, bytes, 'the export');
  // Bytes 5000 to 14000 of the second mebibyte, and the end.
  expect(written).toBe(3 * 4096 + 777);
});

test('any other device gets all of it, zeros too, whether or not it knows them', async () => {
  const { snapshot, bytes } = await snapshotOf(4 * MEBIBYTE + 777);
  for (const form of [(device: MemoryDevice): BlockDevice => device, plain]) {
    const content = new MemoryContent(new Uint8Array(5 * MEBIBYTE).fill(9));
    expect(await exportRaw(snapshot, form(new MemoryDevice(content)))).toBe(snapshot.size);
    expectSame(content.bytes.subarray(0, snapshot.size), bytes, 'the export');
    expect(content.bytes.subarray(snapshot.size).every((byte) => byte === 9)).toBe(true);
  }
});

test('it tells how far it is, and stops when it shall', async () => {
  const { snapshot } = await snapshotOf(4 * MEBIBYTE);
  const device = new MemoryDevice(snapshot.size);
  const said: number[] = [];
  await exportRaw(snapshot, device, { onProgress: (done) => said.push(done) });
  expect(said.at(-1)).toBe(snapshot.size);
  expect(said).toEqual(said.toSorted((a, b) => a - b));
  const aborted = exportRaw(snapshot, device, { signal: AbortSignal.abort() });
  await expect(aborted).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
});
