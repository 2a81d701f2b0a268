/** Volumes of 1 PiB: what is empty takes no time, whoever looks at it. Without that each of these would take minutes. */
import { expect, onTestFinished, test } from 'vitest';
import { type AllocationExtent, allocationOf } from '../../../src/device/allocation.ts';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { MemoryFolder } from '../../../src/device/memory-folder.ts';
import { ZeroMap } from '../../../src/device/zero-map.ts';
import { exportQcow2 } from '../../../src/export/qcow2.ts';
import { exportRaw } from '../../../src/export/raw.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { SparseDevice } from '../../interop/nbd-conformance/servers/sparse-device.ts';

const SIZE = 2 ** 50;
const PLACES = [0, 2 ** 40, 513 * 2 ** 40, SIZE - BLOCK_SIZE];
const CLUSTER = 65_536;

/** One that knows its zeros, as a file does. */
class SparseFile extends SparseDevice {
  readonly #map: ZeroMap;

  constructor(size: number) {
    super(size);
    this.#map = new ZeroMap(size, 'zero');
  }

  override async write(offset: number, source: Uint8Array): Promise<void> {
    this.#map.markData(offset, source.byteLength);
    await super.write(offset, source);
  }

  async *allocation(offset: number, length: number): AsyncGenerator<AllocationExtent> {
    for (let at = offset; at < offset + length; ) {
      const extent = this.#map.extentAt(at, offset + length);
      yield extent;
      at += extent.length;
    }
  }
}

/** Its snapshots hold 1 in the first block of each place, then 2. */
async function largeVolume() {
  const store = new DirectoryStore(new MemoryFolder('store'));
  const device = new SparseFile(SIZE);
  await Volume.initialize(device, { store });
  const volume = await Volume.open(device, { store });
  onTestFinished(() => volume.close());
  const snapshots = [];
  for (const value of [1, 2, 3]) {
    for (const place of PLACES) await volume.write(place, new Uint8Array(BLOCK_SIZE).fill(value));
    if (value < 3) snapshots.push(await volume.createSnapshot());
  }
  const [older, newer] = snapshots;
  if (older === undefined || newer === undefined) throw new Error('there are two');
  return { volume, older, newer };
}

test('what is zero in a snapshot, and what changed, is found at once', async () => {
  const { volume, older, newer } = await largeVolume();
  const data: number[] = [];
  let at = 0;
  for await (const { length, zero } of allocationOf(older)) {
    if (!zero) data.push(at);
    at += length;
  }
  expect([data, at]).toEqual([PLACES, SIZE]);
  const changed = [];
  for await (const { offset } of volume.changedBlocks({ since: older, until: newer })) changed.push(offset);
  expect(changed).toEqual(PLACES);
});

test('a copy has the data, and only that is read', async () => {
  const { older } = await largeVolume();
  const target = new SparseDevice(SIZE);
  expect(await exportRaw(older, target, { isBlank: true })).toBe(PLACES.length * BLOCK_SIZE);
  const bytes = new Uint8Array(1);
  for (const place of PLACES) {
    await target.read(place, bytes);
    expect(bytes[0]).toBe(1);
  }
});

test('a qcow2 image holds the data; of what changed too, though in larger clusters than of smaller volumes', async () => {
  const { volume, older, newer } = await largeVolume();
  for (const since of [undefined, older]) {
    const content = new MemoryContent(0);
    const image = new MemoryDevice(content);
    const figures = await exportQcow2(volume, image, { snapshot: newer, ...(since && { since }) });
    // Also an L1 table of 16 MiB, 4 L2 tables, the header, refcount table and block.
    const fileBytes = 16 * 2 ** 20 + (2 * PLACES.length + 3) * CLUSTER;
    expect(figures).toEqual({
      size: SIZE,
      clusterSize: CLUSTER,
      dataBytes: PLACES.length * CLUSTER,
      zeroBytes: 0,
      fileBytes,
    });
  }
});
