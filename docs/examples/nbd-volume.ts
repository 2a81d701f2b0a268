// Protects a volume that an NBD server has: qemu-nbd over an image, nbdkit over anything.
import { DirectoryStore, NbdDevice, Volume } from 'volsnap';

const [uri = 'nbd://localhost/', folder = 'store'] = process.argv.slice(2);

const device = await NbdDevice.open(uri, { writable: true });
// An address has nothing beside it, so say where the snapshots are to be kept.
const store = new DirectoryStore(folder);
await Volume.initialize(device, { store });

await using volume = await Volume.open(device, { store });
const snapshot = await volume.createSnapshot({ label: 'before' });
await volume.write(1024 * 1024, new Uint8Array(100_000).fill(1));
await volume.flush();

const now = await volume.read(1024 * 1024, 100_000);
const before = await snapshot.read(1024 * 1024, 100_000);
console.log(`now ${now[0]}, before ${before[0]}`);
