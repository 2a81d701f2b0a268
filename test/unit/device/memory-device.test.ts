import { describe, expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.js';
import { InvalidArgumentError } from '../../../src/errors.js';
import { blockDeviceSuite, resizableDeviceSuite } from './contract.js';

blockDeviceSuite('MemoryDevice', {
  make: async (content) => new MemoryDevice(content),
  makeReadOnly: async (content) => new MemoryDevice(content, { writable: false }),
});
resizableDeviceSuite('MemoryDevice', async (content) => new MemoryDevice(content));

describe('MemoryDevice', () => {
  test('made of a size holds zeros', () => {
    expect(new MemoryDevice(3).bytes).toEqual(new Uint8Array(3));
  });

  test('made of bytes uses them, and shows them after close', async () => {
    const bytes = Uint8Array.of(1, 2, 3);
    const device = new MemoryDevice(bytes, { name: 'three' });
    await device.write(1, Uint8Array.of(9));
    await device.close();
    expect(bytes).toEqual(Uint8Array.of(1, 9, 3));
    expect(device.bytes).toEqual(bytes);
    expect(device.name).toBe('three');
  });

  test.each([-1, 0.5, Number.NaN])('refuses the size %d', (size) => {
    expect(() => new MemoryDevice(size)).toThrow(InvalidArgumentError);
  });
});
