/** The list of a reserve inside the volume: whatever a crash leaves of it, what the volume has got stays the volume's. */
import { expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/index.js';
import { Extents } from '../../../src/store/extents.js';
import { RESERVE_LIST_BLOCKS, readReserveList, writeReserveList } from '../../../src/store/reserve-list.js';
import { BLOCK_SIZE } from '../../../src/units.js';

const AT = 4 * BLOCK_SIZE;
const EPOCH = 7n;
const list = (length: number) => new Extents([{ start: 8, length }]);

async function withBoth(length: number): Promise<MemoryDevice> {
  const device = new MemoryDevice(64 * BLOCK_SIZE);
  await writeReserveList(device, AT, EPOCH, list(length));
  return device;
}

const place = async (device: MemoryDevice, index: number): Promise<Uint8Array> => {
  const bytes = new Uint8Array(BLOCK_SIZE);
  await device.read(AT + index * BLOCK_SIZE, bytes);
  return bytes;
};
const put = (device: MemoryDevice, index: number, bytes: Uint8Array): Promise<void> =>
  device.write(AT + index * BLOCK_SIZE, bytes);

test('of two places the shorter list counts', async () => {
  const device = await withBoth(20);
  const shorter = await withBoth(10);
  for (let index = 0; index < RESERVE_LIST_BLOCKS; index++) {
    const before = await place(device, index);
    await put(device, index, await place(shorter, index));
    expect((await readReserveList(device, AT, EPOCH)).total).toBe(10);
    await put(device, index, before);
  }
});

test('an older list that a crash has left never counts again, wherever the next one is cut off', async () => {
  const shorter = await withBoth(10);
  for (let stale = 0; stale < RESERVE_LIST_BLOCKS; stale++) {
    for (let writes = 0; writes < 3; writes++) {
      const device = await withBoth(20);
      await put(device, 1 - stale, await place(shorter, 1 - stale));
      const write = device.write.bind(device);
      let left = writes;
      device.write = async (offset, source) => {
        if (left-- > 0) return write(offset, source);
        await write(offset, source.fill(0xee));
        throw new Error('the power fails');
      };
      await expect(writeReserveList(device, AT, EPOCH, list(5), list(10))).rejects.toThrow('the power fails');
      expect((await readReserveList(device, AT, EPOCH)).total).toBeLessThanOrEqual(10);
    }
  }
});
