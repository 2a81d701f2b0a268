/**
 * Sound stores to start from, the same for the same seed: both layouts, one to five snapshots, tables of several blocks,
 * grown diff areas, zero blocks, some that were left by a killed process,
 * and one that has taken shadow copies of Windows over.
 */
import type { Folder } from '../../src/device/folder.ts';
import { MemoryContent, MemoryDevice } from '../../src/device/memory-device.ts';
import { MemoryFolder } from '../../src/device/memory-folder.ts';
import type { Environment } from '../../src/environment.ts';
import { DeviceError, NotFoundError } from '../../src/errors.ts';
import { START_BLOCK_OFFSET } from '../../src/format/constants.ts';
import { DirectoryStore } from '../../src/store/directory-store.ts';
import { InVolumeStore } from '../../src/store/in-volume-store.ts';
import type { Store } from '../../src/store/store.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { randomWritableImage } from '../interop/support/random-windows-image.ts';

/** Name of the device among the contents of an image; the others are files of the folder. */
export const DEVICE = 'device';

/** Every byte there is: the device and the files of the store. */
export type Image = ReadonlyMap<string, Uint8Array>;

export interface Base {
  readonly name: string;
  readonly layout: 'directory' | 'in-volume';
  /** Bytes of the protected volume. */
  readonly size: number;
  readonly image: Image;
  /** Was the volume closed? Else there are entries that only their checksums vouch for. */
  readonly clean: boolean;
  readonly volume: Uint8Array;
  /** By id, oldest first. */
  readonly snapshots: ReadonlyMap<string, Uint8Array>;
  /** GUIDs of the stores of shadow copies that were taken over: no checksum speaks for what they hold. */
  readonly shadowCopies: ReadonlySet<string>;
}

interface Plan {
  readonly layout: 'directory' | 'in-volume';
  readonly size: number;
  readonly snapshots: number;
  /** Blocks written after each snapshot. */
  readonly writes: number;
  readonly filled: boolean;
  readonly clean: boolean;
  /** The oldest that many are deleted again. */
  readonly deleted?: number;
  /** Was it a volume with shadow copies of Windows? Its size is theirs then. */
  readonly takesOver?: boolean;
}

const KIBIBYTE = 1024;
const PLANS: readonly Plan[] = [
  { layout: 'directory', size: 256 * KIBIBYTE, snapshots: 1, writes: 6, filled: true, clean: true },
  { layout: 'directory', size: 512 * KIBIBYTE + 700, snapshots: 3, writes: 9, filled: true, clean: true },
  {
    layout: 'directory',
    size: 512 * KIBIBYTE,
    snapshots: 5,
    writes: 12,
    filled: true,
    clean: false,
    deleted: 1,
  },
  // 560 blocks of zeros: two table blocks, and next to no data.
  { layout: 'directory', size: 560 * BLOCK_SIZE, snapshots: 2, writes: 540, filled: false, clean: true },
  { layout: 'in-volume', size: 256 * KIBIBYTE, snapshots: 1, writes: 6, filled: true, clean: true },
  {
    layout: 'in-volume',
    size: 512 * KIBIBYTE - 300,
    snapshots: 3,
    writes: 9,
    filled: true,
    clean: true,
    deleted: 1,
  },
  { layout: 'in-volume', size: 512 * KIBIBYTE, snapshots: 5, writes: 12, filled: true, clean: false },
  { layout: 'in-volume', size: 560 * BLOCK_SIZE, snapshots: 2, writes: 540, filled: false, clean: true },
  { layout: 'in-volume', size: 0, snapshots: 2, writes: 12, filled: false, clean: true, takesOver: true },
];

/** Time goes on by a second at each look; nothing is left to chance. */
export function steadyEnvironment(random: SeededRandom): Environment {
  let now = Date.UTC(2026, 0, 1);
  return {
    clock: {
      now: () => {
        now += 1000;
        return now;
      },
      monotonic: () => performance.now(),
      after: (milliseconds, action) => {
        const timer = setTimeout(action, milliseconds);
        return () => clearTimeout(timer);
      },
    },
    random,
  };
}

export async function makeBases(seed: string): Promise<Base[]> {
  const bases: Base[] = [];
  for (const [index, plan] of PLANS.entries())
    bases.push(await makeBase(plan, new SeededRandom(`${seed}/base ${index}`)));
  return bases;
}

/** Where a start block of Windows says where its catalog is. */
const CATALOG_OFFSET = START_BLOCK_OFFSET + 0x30;

const GROWTH = { initial: 12 * BLOCK_SIZE, maximum: 32 * BLOCK_SIZE };

async function makeBase(plan: Plan, random: SeededRandom): Promise<Base> {
  const { layout, takesOver = false } = plan;
  const bytes = takesOver ? randomWritableImage(random.fork('image')).bytes : new Uint8Array(plan.size);
  const size = bytes.byteLength;
  if (plan.filled) random.fill(bytes);
  const model = bytes.slice();
  const content = new MemoryContent(bytes);
  const folder = new MemoryFolder('store');
  const environment = steadyEnvironment(random.fork('engine'));
  const inside = layout === 'in-volume';
  await Volume.initialize(new MemoryDevice(content), {
    store: inside ? new InVolumeStore({ reserve: (10 + 130) * BLOCK_SIZE }) : new DirectoryStore(folder),
    environment,
    ...(takesOver ? { shadowCopies: 'drop' } : {}),
  });
  const volume = await Volume.open(new MemoryDevice(content), {
    store: storeOf(layout, folder),
    environment,
    growth: GROWTH,
  });
  const moments = new Map<string, Uint8Array>();
  const shadowCopies = new Set<string>();
  for (const { id, storeId } of volume.snapshots) {
    if (id === storeId) moments.set(id, model.slice());
    else shadowCopies.add(storeId);
  }
  // Only the base goes on leading to the catalog of Windows.
  if (takesOver) model.fill(0, CATALOG_OFFSET, CATALOG_OFFSET + 8);
  for (let i = 0; i < plan.snapshots; i++) {
    const snapshot = await volume.createSnapshot({
      label: `number ${i}`,
      applicationInfo: new Uint8Array(i * 10),
    });
    moments.set(snapshot.id, model.slice());
    if (plan.writes > 100) {
      // Zeros over zeros: every block gets an entry, but there is hardly any data.
      const at = i * BLOCK_SIZE;
      const piece = new Uint8Array(plan.writes * BLOCK_SIZE);
      random.fill(piece.subarray(0, 3 * BLOCK_SIZE));
      await volume.write(at, piece);
      model.set(piece, at);
    } else {
      for (let w = 0; w < plan.writes; w++) {
        const at = random.below(size - 100);
        const piece = random.fill(new Uint8Array(Math.min(size - at, random.between(1, 2 * BLOCK_SIZE))));
        // Not over the stores of shadow copies.
        if (takesOver && at + piece.byteLength > 14 * BLOCK_SIZE) continue;
        await volume.write(at, piece);
        model.set(piece, at);
      }
    }
  }
  for (let i = 0; i < (plan.deleted ?? 0); i++) {
    const [oldest] = volume.snapshots;
    await volume.deleteOldest();
    if (oldest !== undefined) moments.delete(oldest.id);
  }
  await new Promise<void>((resolve) => setTimeout(resolve, 20)); // growth and trimming in the background
  if (plan.clean) await volume.close();
  const image = new Map<string, Uint8Array>([[DEVICE, content.bytes.slice()]]);
  for (const name of await folder.list())
    image.set(name, (await folder.open(name, { writable: false })).bytes.slice());
  if (!plan.clean) await volume.close();
  const name = `${layout}, ${size} bytes, ${plan.snapshots} snapshots${plan.clean ? '' : ', killed'}`;
  return { name, layout, size, image, clean: plan.clean, volume: model, snapshots: moments, shadowCopies };
}

export const storeOf = (layout: Base['layout'], folder: Folder): Store =>
  layout === 'in-volume' ? new InVolumeStore() : new DirectoryStore(folder);

/** A folder in memory whose files are given. */
export class ImageFolder implements Folder {
  readonly name = 'store';
  readonly #files: Map<string, MemoryContent>;

  constructor(files: Map<string, MemoryContent>) {
    this.#files = files;
  }

  async list(): Promise<string[]> {
    return [...this.#files.keys()];
  }

  async create(name: string): Promise<MemoryDevice> {
    if (this.#files.has(name)) throw new DeviceError(`${name} exists`);
    const content = new MemoryContent(0);
    this.#files.set(name, content);
    return new MemoryDevice(content, { name });
  }

  async open(name: string, options: { writable: boolean }): Promise<MemoryDevice> {
    const content = this.#files.get(name);
    if (content === undefined) throw new NotFoundError(`there is no ${name}`);
    return new MemoryDevice(content, { name, writable: options.writable });
  }

  async remove(name: string): Promise<void> {
    if (!this.#files.delete(name)) throw new NotFoundError(`there is no ${name}`);
  }

  async sync(): Promise<void> {
    // Nothing here outlives the process.
  }
}

/** A device and a folder that hold the image; they use its bytes as they are, without copying. */
export function mount(image: Image): { content: MemoryContent; folder: ImageFolder } {
  const files = new Map([...image].map(([name, bytes]) => [name, new MemoryContent(bytes)]));
  const content = files.get(DEVICE) ?? new MemoryContent(0);
  files.delete(DEVICE);
  return { content, folder: new ImageFolder(files) };
}
