/** A volume whose user knows what it does not use. */
import { DirectoryStore, type FreeSpaceProvider, MemoryDevice, MemoryFolder, Volume } from 'volsnap';

const disk = new MemoryDevice(1024 * 1024);
const store = new DirectoryStore(new MemoryFolder('snapshots'));
await Volume.initialize(disk, { store });
await using volume = await Volume.open(disk, { store });

// 'auto' and 'frozen' ask NTFS or ext2/3/4. Who knows better says so: a bit for each 16 KiB, lowest first, 1: unused.
const mine: FreeSpaceProvider = {
  name: 'my allocator',
  async unusedBlocks(_source, size) {
    return { unused: new Uint8Array(size / 16_384 / 8).fill(0xff, 4) }; // or { unsure: 'why' }
  },
};
volume.on('unusedSpaceUnknown', ({ reason }) => console.warn(reason));
const snapshot = await volume.createSnapshot({ unusedSpace: mine });
await volume.write(800_000, Buffer.from('needs no copy'));
console.log(`left out: ${snapshot.unusedBytes} bytes; copies: ${volume.figures.copies.copiedBlocks}`);
