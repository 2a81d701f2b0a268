// One moment over two volumes, with an application that is frozen for it.
import { createSnapshotSet, DirectoryStore, FileDevice, type SnapshotWriter, Volume } from 'volsnap';

const [dataPath = 'data.img', logPath = 'log.img'] = process.argv.slice(2);

async function openVolume(path: string): Promise<Volume> {
  const store = new DirectoryStore(`${path}.volsnap`);
  const device = await FileDevice.open(path, { writable: true });
  await Volume.initialize(device, { store });
  return Volume.open(device, { store });
}

await using data = await openVolume(dataPath);
await using log = await openVolume(logPath);

// A database writes what it has in memory, and waits until the snapshots are there.
const database: SnapshotWriter = {
  name: 'database',
  freeze: async () => {
    await data.write(0, Buffer.from('checkpoint'));
  },
  thaw: () => console.log('the database goes on'),
  abort: () => console.log('no set this time; the database goes on'),
  limits: { freeze: 5000 },
};

const set = await createSnapshotSet([data, log], {
  label: 'nightly',
  writers: [database],
  holdTimeoutMs: 2000,
});
for (const snapshot of set.snapshots) {
  if (snapshot.setId !== set.id) throw new Error('a member of another set');
}
console.log(`${set.snapshots.length} snapshots of one moment`);
