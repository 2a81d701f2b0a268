// A full backup, then an incremental one, of an image that is in use.
import { open } from 'node:fs/promises';
import { DirectoryStore, FileDevice, Volume } from 'volsnap';

const [image = 'disk.img', backup = 'backup.raw'] = process.argv.slice(2);

// Once: make a store beside the image.
const store = new DirectoryStore(`${image}.volsnap`);
const device = await FileDevice.open(image, { writable: true });
await Volume.initialize(device, { store });

// From now on every read and write of the image goes through the volume.
await using volume = await Volume.open(device, { store });

const full = await volume.createSnapshot({ label: 'full', applicationInfo: Buffer.from('job 1') });
await volume.write(1024 * 1024, Buffer.from('written while the backup runs'));

// The snapshot reads as the volume was, whatever is written meanwhile.
const target = await open(backup, 'w+');
const chunk = new Uint8Array(1024 * 1024);
for (let offset = 0; offset < full.size; offset += chunk.byteLength) {
  const part = chunk.subarray(0, Math.min(chunk.byteLength, full.size - offset));
  await full.read(offset, part);
  await target.write(part, 0, part.byteLength, offset);
}

// The next backup takes only what changed between the two snapshots.
const incremental = await volume.createSnapshot({ label: 'incremental' });
let copied = 0;
for await (const { offset, length } of volume.changedBlocks({ since: full, until: incremental })) {
  const bytes = await incremental.read(offset, length);
  await target.write(bytes, 0, length, offset);
  copied += length;
}
await target.close();
console.log(`incremental backup: ${copied} bytes`);

// The older snapshot has served its purpose.
await full.delete();
