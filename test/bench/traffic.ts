/** Question: how many bytes go to the device for each byte that is overwritten for the first time? */
import { DirectoryStore, MemoryDevice, MemoryFolder, type ResizableDevice, Volume } from '../../src/index.js';
import type { Figures } from './table.js';
import { fill, run } from './workload.js';

export async function traffic(total: number): Promise<Figures[]> {
  const size = total / 4;
  const values: Record<string, number> = {};
  for (const request of [2 ** 20, 2 ** 14]) {
    const counted = { bytes: 0 };
    const device = counting(new MemoryDevice(size), counted);
    const folder = new MemoryFolder();
    const create = folder.create.bind(folder);
    folder.create = async (name) => counting(await create(name), counted);
    const store = new DirectoryStore(folder);
    await Volume.initialize(device, { store });
    const volume = await Volume.open(device, { store });
    await fill(volume, size);
    await volume.createSnapshot();
    counted.bytes = 0;
    await run({ name: '', kind: 'write', request, order: 'random', depth: 16 }, volume, size);
    values[`${request / 1024} KiB`] = counted.bytes / size;
    await volume.close();
  }
  return [{ name: 'bytes written for each byte first written', unit: 'bytes', values }];
}

function counting<Device extends ResizableDevice>(device: Device, counted: { bytes: number }): Device {
  const write = device.write.bind(device);
  device.write = (offset, source) => {
    counted.bytes += source.byteLength;
    return write(offset, source);
  };
  return device;
}
