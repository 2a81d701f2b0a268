// Reads the shadow copies of a volume that Windows wrote. Nothing is written to the image.
import { createHash } from 'node:crypto';
import { FileDevice, Volume } from 'volsnap';

const [image = 'windows.raw'] = process.argv.slice(2);

await using volume = await Volume.open(await FileDevice.open(image));
for (const warning of volume.recovery.warnings) console.warn(warning);

for (const snapshot of volume.snapshots) {
  const hash = createHash('sha256');
  for (let offset = 0; offset < snapshot.size; offset += 1024 * 1024) {
    hash.update(await snapshot.read(offset, Math.min(1024 * 1024, snapshot.size - offset)));
  }
  console.log(snapshot.createdAt.toISOString(), snapshot.id, hash.digest('hex'));
}
