// Changes a snapshot; the volume and other snapshots stay as they are.
import { DirectoryStore, FileDevice, Volume } from 'volsnap';

const [image = 'disk.img'] = process.argv.slice(2);

const store = new DirectoryStore(`${image}.volsnap`);
const device = await FileDevice.open(image, { writable: true });
await Volume.initialize(device, { store });
await using volume = await Volume.open(device, { store });

const kept = await volume.createSnapshot({ label: 'kept' });
const scratch = await volume.createSnapshot({ label: 'scratch', writable: true });
await scratch.write(4096, Buffer.from('written to the snapshot'));
await scratch.flush(); // durable from here on

const holds = async (source: typeof scratch | typeof volume) =>
  (await source.read(4096, 7)).some((byte) => byte !== 0);
console.log('scratch', await holds(scratch), 'kept', await holds(kept), 'volume', await holds(volume));
