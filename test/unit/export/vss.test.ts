/** What exports to one image with a volume and its snapshots do at the edges; libvshadow reads such images in test/interop. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FileDevice } from '../../../src/device/file-device.ts';
import { NotFoundError, UnsupportedError } from '../../../src/errors.ts';
import { exportVss } from '../../../src/export/vss.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { temporaryDirectory } from '../device/temporary.ts';
import { expectSame, KIBIBYTE, World } from '../engine/world.ts';

const open = async (path: string) =>
  Volume.open(await FileDevice.open(path), { store: new InVolumeStore(), readOnly: true });

test('snapshots that were taken before the volume grew keep their sizes', async () => {
  const image = join(await temporaryDirectory(), 'image');
  const world = await World.create({ size: 100 * KIBIBYTE });
  const older = await world.snapshot();
  await world.volume.grow(200 * KIBIBYTE);
  await world.volume.write(3 * BLOCK_SIZE, world.random.fill(new Uint8Array(130 * KIBIBYTE)));
  const newer = await world.volume.createSnapshot();
  const expected = await newer.read(0, newer.size);
  await world.volume.grow(300 * KIBIBYTE);
  await exportVss(world.volume, image);
  await using copy = await open(image);
  expect(copy.size).toBe(300 * KIBIBYTE);
  const read = await Promise.all(copy.snapshots.map((snapshot) => snapshot.read(0, snapshot.size)));
  for (const [index, bytes] of [world.model.of(older.id), expected].entries())
    expectSame(read[index] ?? new Uint8Array(0), bytes, `snapshot ${index}`);

  const until = join(await temporaryDirectory(), 'until');
  await exportVss(world.volume, until, { until: older });
  await using volume = await open(until);
  expectSame(await volume.read(0, volume.size), world.model.of(older.id), 'the volume as it was');
});

test('of nothing there is no image', async () => {
  const image = join(await temporaryDirectory(), 'image');
  const world = await World.create({ size: 0 });
  await world.snapshot();
  await expect(exportVss(world.volume, image)).rejects.toThrow(UnsupportedError);
  await expect(exportVss(world.volume, image)).rejects.toThrow('volume has no bytes');
});

test('a file that cannot be made is told as one', async () => {
  const image = join(await temporaryDirectory(), 'nowhere', 'image');
  const world = await World.create({ size: 100 * KIBIBYTE });
  await expect(exportVss(world.volume, image)).rejects.toThrow(NotFoundError);
  await expect(exportVss(world.volume, image)).rejects.toThrow(`cannot create ${image}`);
});
