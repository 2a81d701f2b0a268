/** `serve --late-areas`: the volume is served before its diff areas are there. */
import { readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FORMAT_SIGNATURE } from '../../src/format/constants.js';
import { NbdDevice } from '../../src/index.js';
import { Bench, expectSame, MEBIBYTE, noise } from './cli-support.js';
import { exportAt, serve } from './serve-support.js';

const SIZE = 2 * MEBIBYTE;

test('a server takes up diff areas that come while it runs', async () => {
  const bench = new Bench();
  await bench.volume('a.img', noise(SIZE, 1));
  const id = bench.snapshot('a.img');
  const store = join(bench.folder, 'a.img.volsnap');
  const area = readdirSync(store).find((name) => name.includes(id)) ?? '';
  expect(area).toContain(FORMAT_SIGNATURE);
  renameSync(join(store, area), join(bench.folder, area));
  const server = await serve(bench, ['a.img', '--late-areas', '60', '--late-memory', '8M']);
  expect(server.errors()).toContain(`has not arrived: ${id}`);
  expect(server.ready.exports).toEqual(['', 'live']);
  await using device = await NbdDevice.open(server.ready.uri, { writable: true });
  await device.write(0, noise(MEBIBYTE, 2));
  await device.flush();
  const { late, snapshots } = bench.json(['info', 'a.img']);
  expect({ snapshots, ...late }).toMatchObject({ snapshots: 0, ids: [id], copiedBytes: MEBIBYTE });
  expect(bench.run(['list', 'a.img']).stderr).toContain(id);
  renameSync(join(bench.folder, area), join(store, area));
  while (!server.errors().includes('have arrived')) await new Promise((resolve) => setTimeout(resolve, 50));
  await using snapshot = await NbdDevice.open(exportAt(server.ready.uri, `snapshot/${id}`));
  const bytes = Buffer.alloc(SIZE);
  await snapshot.read(0, bytes);
  expectSame(bytes, noise(SIZE, 1));
  expect((await server.stop()).status).toBe(0);
});
