/** Files for benchmarks: a volume with its store, and the same file without an engine. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DirectoryStore, FileDevice, InVolumeStore, Volume, type VolumeOptions } from '../../src/index.js';
import { fill } from './workload.js';

export class Place {
  private constructor(
    readonly folder: string,
    readonly size: number,
  ) {}

  static async create(size: number): Promise<Place> {
    return new Place(await mkdtemp(join(process.env.VOLSNAP_BENCH_DIR ?? tmpdir(), 'volsnap-bench-')), size);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  async file(name: string, filled = true): Promise<FileDevice> {
    const path = join(this.folder, name);
    await rm(path, { force: true });
    await writeFile(path, '');
    await truncate(path, this.size);
    const device = await FileDevice.open(path, { writable: true });
    if (filled) await fill(device, this.size);
    return device;
  }

  /** A new volume with content and an empty store. */
  async volume(
    layout: 'directory' | 'in-volume' = 'directory',
    filled = true,
    options: VolumeOptions = {},
  ): Promise<Volume> {
    const device = await this.file('volume.img', filled);
    const path = `${device.path}.volsnap`;
    await rm(path, { recursive: true, force: true });
    const store =
      layout === 'directory'
        ? new DirectoryStore(path)
        : new InVolumeStore({ reserve: 4 * this.size + 2 ** 28 });
    await Volume.initialize(device, { store });
    return Volume.open(device, { store, ...options });
  }
}
