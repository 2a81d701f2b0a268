/** What is known to be zero, as other processes hear of it: over the control channel, and as `base:allocation` over NBD. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { type Allocated, type AllocationExtent, allocationOf } from '../../../src/device/allocation.ts';
import { FileDevice } from '../../../src/device/file-device.ts';
import { NbdDevice } from '../../../src/nbd/client/nbd-device.ts';
import { connectToOwner } from '../../../src/serve/connect.ts';
import { EXTENTS_MAX } from '../../../src/serve/control-protocol.ts';
import { VolumeServer } from '../../../src/serve/volume-server.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { Volume } from '../../../src/volume/volume.ts';

const UNIT = 4096;
/** More parts than one answer has room for. */
const PARTS = EXTENTS_MAX + 1000;

async function extentsOf(source: Allocated, offset?: number, length?: number): Promise<AllocationExtent[]> {
  const extents: AllocationExtent[] = [];
  for await (const extent of allocationOf(source, offset, length)) extents.push(extent);
  return extents;
}

/** Far faster on long lists than the comparison of `toEqual`. */
const isSame = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

test('other processes know what the volume and its snapshot know', async () => {
  const directory = await mkdtemp(`${tmpdir()}/volsnap-serve-`);
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const path = `${directory}/disk.img`;
  await writeFile(path, '');
  await truncate(path, 2 * PARTS * UNIT + 77);
  const open = () => FileDevice.open(path, { writable: true });
  const device = await open();
  for (let part = 0; part < PARTS; part++) await device.write((2 * part + 1) * UNIT, Uint8Array.of(1));
  const store = new DirectoryStore(`${path}.volsnap`);
  await Volume.initialize(device, { store });
  await device.close();

  const volume = await Volume.open(await open(), { store });
  onTestFinished(() => volume.close());
  const snapshot = await volume.createSnapshot();
  await volume.discard(0, 1000 * UNIT);
  const [now, then] = [await extentsOf(volume), await extentsOf(snapshot)];
  // The snapshot's copies are data, and so are the zeros that blocks have between.
  expect([now[0], then[0]]).toEqual([
    { length: 1001 * UNIT, zero: true },
    { length: 1000 * UNIT, zero: false },
  ]);
  expect(then.filter(({ zero }) => zero).length).toBeGreaterThan(EXTENTS_MAX);

  const server = await VolumeServer.start([volume]);
  onTestFinished(() => server.close());
  const remote = await connectToOwner({ volume: path, store: undefined });
  onTestFinished(() => remote?.close());
  if (remote === undefined) throw new Error('the volume is served');
  const [remoteSnapshot] = remote.snapshots;
  if (remoteSnapshot === undefined) throw new Error('there is a snapshot');
  expect(isSame(await extentsOf(remote), now)).toBe(true);
  expect(isSame(await extentsOf(remoteSnapshot), then)).toBe(true);
  expect(await extentsOf(remoteSnapshot, 3001 * UNIT - 1, 2)).toEqual([
    { length: 1, zero: true },
    { length: 1, zero: false },
  ]);
  await expect(extentsOf(remoteSnapshot, 1, snapshot.size)).rejects.toThrow(/range|within/);

  const [uri = ''] = server.uris;
  const live = await NbdDevice.open(uri);
  onTestFinished(() => live.close());
  expect(isSame(await extentsOf(live), now)).toBe(true);
  const past = await NbdDevice.open(uri.replace('///', `///snapshot/${snapshot.id}`));
  onTestFinished(() => past.close());
  expect(isSame(await extentsOf(past), then)).toBe(true);
});
