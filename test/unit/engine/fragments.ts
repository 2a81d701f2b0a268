/**
 * Makes an in-volume store with two snapshots whose diff areas lie interleaved, block by block, as years of growing and
 * deleting would: through the parts of the engine, without a `Volume`.
 */
import type { BlockDevice } from '../../../src/device/block-device.ts';
import { createDiffArea } from '../../../src/diff-area/create.ts';
import type { DiffArea } from '../../../src/diff-area/diff-area.ts';
import { systemEnvironment } from '../../../src/environment.ts';
import { informationOf } from '../../../src/format/application-information.ts';
import { filetimeFromMilliseconds } from '../../../src/format/filetime.ts';
import { guidFrom } from '../../../src/format/guid.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { randomU64 } from '../../../src/store/new-start.ts';
import { BLOCK_SIZE, blocksIn } from '../../../src/units.ts';

/**
 * `device` must hold an in-volume store without snapshots, open nowhere.
 * @param runs how many runs each of the two diff areas gets, about
 * @returns ids of the two snapshots, the older first; both hold the volume as it is
 */
export async function makeInterleavedSnapshots(device: BlockDevice, runs: number): Promise<string[]> {
  const environment = systemEnvironment;
  const store = await new InVolumeStore().attach(device, { environment, writable: true });
  const { volume } = store;
  const areas: DiffArea[] = [];
  for (const order of [1, 2]) {
    const storeId = guidFrom(environment.random);
    const area = await createDiffArea(await store.createArea(storeId), {
      storeId,
      epoch: randomU64(environment),
      information: informationOf(storeId, guidFrom(environment.random)),
      blockCount: blocksIn(volume.size),
      length: 9 * BLOCK_SIZE,
    });
    areas.push(area);
    await copyFirstBlock(volume, area);
    await store.control.publish({
      snapshot: {
        kind: 'snapshot',
        volumeSize: volume.size,
        storeId,
        order,
        flags: 0x44,
        createdAt: filetimeFromMilliseconds(environment.clock.now()) + BigInt(order),
      },
      diffArea: area.item,
    });
  }
  for (let run = 1; run < runs; run++) {
    for (const area of areas)
      await area.grow(BLOCK_SIZE, (change) => store.control.update(area.storeId, change));
  }
  for (const area of areas) {
    await area.flush();
    await area.writeWatermark();
  }
  await device.flush();
  await store.close();
  return areas.map(({ storeId }) => storeId);
}

async function copyFirstBlock(volume: BlockDevice, area: DiffArea): Promise<void> {
  const data = new Uint8Array(BLOCK_SIZE);
  await volume.read(0, data.subarray(0, Math.min(BLOCK_SIZE, volume.size)));
  const slots = area.reserve(1, 1) ?? [];
  const copies = { blocks: [0], slots, checksums: [area.checksum(0, slots[0] ?? 0, data)] };
  await area.writeData(slots, [data]);
  area.append([copies]);
  await area.writeEntries();
}
