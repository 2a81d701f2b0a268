import { describe, expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.js';
import { SliceDevice } from '../../../src/device/slice-device.js';
import { ClosedError, InvalidArgumentError } from '../../../src/errors.js';
import { StartSectorDevice } from '../../../src/store/start-sector-device.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { blockDeviceSuite } from './contract.js';

const around = (content: Uint8Array) => {
  const bytes = new Uint8Array(content.byteLength + 1500).fill(0x5a);
  bytes.set(content, 1000);
  return bytes;
};

blockDeviceSuite('SliceDevice', {
  make: async (content) => new SliceDevice(new MemoryDevice(around(content)), 1000, content.byteLength),
  makeReadOnly: async (content) =>
    new SliceDevice(new MemoryDevice(around(content), { writable: false }), 1000, content.byteLength),
});

describe('SliceDevice', () => {
  test('leaves what is around it alone', async () => {
    const disk = new MemoryDevice(around(new Uint8Array(10)));
    const slice = new SliceDevice(disk, 1000, 10);
    await slice.write(0, new Uint8Array(10).fill(1));
    await slice.writeZeroes?.(5, 5);
    expect(disk.bytes.subarray(999, 1011)).toEqual(Uint8Array.of(0x5a, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0x5a));
  });

  test('has the optional operations of the device underneath, and only those', () => {
    const slice = new SliceDevice(new MemoryDevice(10), 0, 10);
    expect(slice.discard).toBeDefined();
    expect(slice.readNow).toBeUndefined();
    expect(slice.writeNow).toBeUndefined();
    expect(slice.writev).toBeUndefined();
    expect(slice.modifiedAt).toBeUndefined();
  });

  test('close leaves the device underneath open', async () => {
    const disk = new MemoryDevice(10);
    await new SliceDevice(disk, 0, 5).close();
    await disk.read(0, new Uint8Array(10));
  });

  test('close takes the device underneath with it if told', async () => {
    const disk = new MemoryDevice(10);
    await new SliceDevice(disk, 0, 5, { owns: true }).close();
    await expect(disk.read(0, new Uint8Array(10))).rejects.toThrow(ClosedError);
  });

  test.each([
    [-1, 1],
    [5, 6],
    [11, 0],
    [0, -1],
    [0, 1.5],
  ])('refuses the range offset %d, size %d', (offset, size) => {
    expect(() => new SliceDevice(new MemoryDevice(10), offset, size)).toThrow(InvalidArgumentError);
  });

  test('tells the device underneath what settles, and so does the volume of a store inside', () => {
    const told: number[] = [];
    class Telling extends MemoryDevice {
      settling(length: number): void {
        told.push(length);
      }
    }
    const slice = new SliceDevice(new Telling(64 * BLOCK_SIZE), BLOCK_SIZE, 60 * BLOCK_SIZE);
    new StartSectorDevice(slice, 40 * BLOCK_SIZE, 50 * BLOCK_SIZE).settling?.(4096);
    slice.settling?.(512);
    expect(told).toEqual([4096, 512]);
    expect(new SliceDevice(new MemoryDevice(10), 0, 10).settling).toBeUndefined();
  });
});
