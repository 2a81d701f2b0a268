/** Puts a volume back to a snapshot, works on at once, and undoes it. */
import { DirectoryStore, FileDevice, Volume } from 'volsnap';

const [image = 'disk.img'] = process.argv.slice(2);
const store = new DirectoryStore(`${image}.volsnap`);
const initialized = await FileDevice.open(image, { writable: true });
await Volume.initialize(initialized, { store });
await initialized.close();

await using volume = await Volume.open(await FileDevice.open(image, { writable: true }), { store });
const good = await volume.createSnapshot({ label: 'good' });
await volume.write(0, Buffer.from('spoilt'));

const revert = volume.revert(good, {
  onProgress: (done, total) => console.log(`put back ${done} of ${total} bytes`),
});
await revert.begun; // From here on the volume reads as it was, also after a crash.
console.log(`now ${Buffer.from(await volume.read(0, 4)).toString()}`);
console.log(await revert.completed);

// What it was before is a snapshot of its own: going back to that undoes the revert.
const before = volume.snapshots.at(-1);
if (before !== undefined) await volume.revert(before).completed;
console.log(`undone ${Buffer.from(await volume.read(0, 6)).toString()}`);
