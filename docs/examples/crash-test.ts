// Shows what a power cut does, without a power cut: the devices are simulated, everything follows from a seed.
import { BLOCK_SIZE, DirectoryStore, Volume } from 'volsnap';
import { SimulatedWorld } from 'volsnap/testing';

const world = new SimulatedWorld('any seed');
world.addDisk('volume', { size: 64 * BLOCK_SIZE });
world.addDirectory('store');

const openVolume = () =>
  Volume.open(world.device('volume'), {
    store: new DirectoryStore(world.folder('store')),
    environment: world.environment(),
  });

await world.run(() =>
  Volume.initialize(world.device('volume'), {
    store: new DirectoryStore(world.folder('store')),
    environment: world.environment(),
  }),
);

// Works for 300 steps of the simulated devices, then the power fails.
await world.runSteps(async () => {
  const volume = await openVolume();
  await volume.createSnapshot({ label: 'before' });
  for (let block = 0; ; block = (block + 1) % 64) {
    await volume.write(block * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE).fill(255));
  }
}, 300);
world.crash('power-cut');

await world.run(async () => {
  const volume = await openVolume();
  const [snapshot] = volume.snapshots;
  const bytes = await snapshot?.read(0, volume.size);
  const unharmed = bytes?.every((byte) => byte === 0);
  console.log(
    `snapshot "${snapshot?.label}" after the power cut: ${unharmed ? 'every byte as it was' : 'WRONG'}`,
  );
  await volume.close();
});
