// Backs up a volume that another process serves, while that goes on: through its control channel.
import { connectToOwner, FileDevice, Volume } from 'volsnap';

const [image = 'disk.img'] = process.argv.slice(2);

const served = await connectToOwner({ volume: image });
// Nobody serves it: then it can be opened here.
await using volume = served ?? (await Volume.open(await FileDevice.open(image, { writable: true })));

const since = volume.snapshots.at(-1);
const snapshot = await volume.createSnapshot({ label: 'nightly' });
let changed = 0;
if (since !== undefined) {
  for await (const { offset, length } of volume.changedBlocks({ since, until: snapshot })) {
    changed += (await snapshot.read(offset, length)).byteLength;
  }
}
const who = served === undefined ? 'opened here' : `served by process ${served.serving.pid}`;
console.log(`${who}: ${changed} bytes changed since ${since?.label ?? 'ever'}`);
