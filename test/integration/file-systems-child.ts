/**
 * Writes back what changed on a copy of a volume, through the engine: `file-systems-child.ts IMAGE COPY`.
 * Eight blocks of 4 KiB at a time, so that a kill finds writes in every state.
 */
import { open } from 'node:fs/promises';
import { FileDevice } from '../../src/device/file-device.ts';
import { Volume } from '../../src/volume/volume.ts';

const UNIT = 4096;
const AT_ONCE = 8;

const [, , image = '', copy = ''] = process.argv;
const volume = await Volume.open(await FileDevice.open(image, { writable: true }), {
  growth: { initial: 512 * 1024, maximum: 2 * 1024 * 1024 },
});
const changed = await open(copy);
process.stdout.write('ready\n');
let pending: Promise<void>[] = [];
let written = 0;
for (let at = 0; at < volume.size; at += UNIT) {
  const length = Math.min(UNIT, volume.size - at);
  const wanted = new Uint8Array(length);
  await changed.read(wanted, 0, length, at);
  if (Buffer.compare(await volume.read(at, length), wanted) === 0) continue;
  pending.push(volume.write(at, wanted));
  written++;
  if (pending.length === AT_ONCE) {
    await Promise.all(pending);
    pending = [];
  }
}
await Promise.all(pending);
await volume.close();
process.stdout.write(`wrote ${written}\n`);
