/** The devices of one simulated run, and how the engine is opened on them. */
import { DirectoryStore, type Environment, InVolumeStore, type Store, Volume } from '../../src/index.js';
import { SimulatedWorld, stampSectors } from '../../src/testing/index.js';
import { SECTOR_SIZE } from '../../src/units.js';
import type { Plan } from './plan.js';

const START_SECTOR = 0x1e00;

export class RunWorld {
  readonly world: SimulatedWorld;
  readonly plan: Plan;
  /** What the volume holds before the store is made. */
  readonly initial: Uint8Array;
  #current: { readonly generation: number; readonly environment: Environment } | undefined;

  constructor(plan: Plan) {
    this.plan = plan;
    this.world = new SimulatedWorld(plan.seed);
    const inside = plan.layout === 'in-volume';
    this.world.addDisk('volume', { size: plan.volumeSize, strictOverlap: false, noise: false });
    if (!inside) this.world.addDirectory('store', { strictOverlap: true });
    this.initial = new Uint8Array(plan.volumeSize);
    // The second half begins as zeros.
    stampSectors(this.initial.subarray(0, Math.floor(plan.volumeSize / 2 / SECTOR_SIZE) * SECTOR_SIZE), 0, 0);
  }

  /** One for each generation: asking the world again would give the same random numbers again. */
  #environment(): Environment {
    const { generation } = this.world.scheduler;
    if (this.#current?.generation !== generation)
      this.#current = { generation, environment: this.world.environment() };
    return this.#current.environment;
  }

  get #inside(): boolean {
    return this.plan.layout === 'in-volume';
  }

  store(): Store {
    return this.#inside
      ? new InVolumeStore({ reserve: this.plan.reserve })
      : new DirectoryStore(this.world.folder('store'));
  }

  async initialize(): Promise<void> {
    const device = this.world.device('volume');
    await device.write(0, this.initial);
    await device.flush();
    await Volume.initialize(device, {
      store: this.store(),
      maximumSize: this.plan.maximumSize,
      environment: this.#environment(),
    });
    await device.close();
  }

  open(onVolumeChanged: 'refuse' | 'keep'): Promise<Volume> {
    return Volume.open(this.world.device('volume'), {
      store: this.store(),
      environment: this.#environment(),
      growth: this.plan.growth,
      memoryLimit: this.plan.memoryLimit,
      onVolumeChanged,
      onDamaged: 'refuse',
    });
  }

  /** The volume as its users see it, past the engine: for after a crash. */
  peekVolume(): Uint8Array {
    const disk = this.world.disk('volume');
    const bytes = disk.peek(0, this.plan.volumeSize);
    if (this.#inside && bytes.byteLength >= START_SECTOR + SECTOR_SIZE) {
      const kept = Math.ceil(this.plan.volumeSize / 16_384) * 16_384 + 9 * 16_384;
      bytes.set(disk.peek(kept, SECTOR_SIZE), START_SECTOR);
    }
    return bytes;
  }
}
