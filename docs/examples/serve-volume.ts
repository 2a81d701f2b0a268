// Serves a volume to a virtual machine, and takes a snapshot while it is in use.
import { DirectoryStore, FileDevice, NbdDevice, Volume, VolumeServer } from 'volsnap';

const [image = 'disk.img', socket = 'disk.sock'] = process.argv.slice(2);

const store = new DirectoryStore(`${image}.volsnap`);
const device = await FileDevice.open(image, { writable: true });
await Volume.initialize(device, { store });

await using volume = await Volume.open(device, { store, writeMode: 'writeback' });
await using server = await VolumeServer.start([volume], { socket });
const [uri = ''] = server.uris;

// Here a virtual machine would be started with that address. This client stands in for it.
await using machine = await NbdDevice.open(uri, { writable: true });
await machine.write(4096, new Uint8Array(512).fill(1));

const snapshot = await volume.createSnapshot({ label: 'while it runs' });
await machine.write(4096, new Uint8Array(512).fill(2));

// The snapshot is an export from now on.
const [protocol = '', place = ''] = uri.split('/?');
await using backup = await NbdDevice.open(`${protocol}/snapshot/${snapshot.id}?${place}`);
const [now, before] = [new Uint8Array(512), new Uint8Array(512)];
await machine.read(4096, now);
await backup.read(4096, before);
console.log(`now ${now[0]}, before ${before[0]}`);
