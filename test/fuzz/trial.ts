/**
 * One malformed image, opened in every way there is.
 *
 * What counts. Every call must end in a result or in a `VolsnapError`. A snapshot that can be read must hold what it held
 * when it was taken, or else be a *forgery*: the mutation made the checksums right again, so nothing could tell. Rot, which
 * is every other mutation, must never be read as data: wrong bytes of a snapshot that is said to be sound, or a snapshot
 * that has gone without a word, are `exposed`. In a store that was not closed, entries behind the watermark are
 * promised nothing but their checksum, and losing one cannot be told from a write that never was: `unclean`.
 */
import { MemoryDevice } from '../../src/device/memory-device.ts';
import { AssertionError, VolsnapError } from '../../src/errors.ts';
import type { Snapshot } from '../../src/snapshot/snapshot.ts';
import type { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume, type VolumeOptions } from '../../src/volume/volume.ts';
import { type Base, type Image, type ImageFolder, mount, steadyEnvironment, storeOf } from './bases.ts';
import type { Mutation } from './mutate.ts';

export type Verdict =
  /** Refused, or read right, or a mixture of the two. */
  | 'right'
  /** Wrong bytes, or a snapshot gone, of a forgery. */
  | 'forged'
  | 'unclean'
  /** Wrong bytes, or a snapshot gone, without anything that says so. */
  | 'exposed'
  /** Something other than a `VolsnapError` came out. */
  | 'broken';

export interface Outcome {
  readonly verdict: Verdict;
  readonly detail: string;
  /** Codes of the errors met, or `opened` where there was none. */
  readonly codes: readonly string[];
}

export async function tryImage(base: Base, mutation: Mutation, random: SeededRandom): Promise<Outcome> {
  const trial = new Trial(base, random);
  try {
    await trial.readOnly(mutation.image);
    await trial.writable(mutation.image);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { verdict: 'broken', detail: text, codes: [...trial.codes] };
  }
  const detail = trial.wrong.join('; ');
  const verdict =
    trial.wrong.length === 0 ? 'right' : mutation.sealed ? 'forged' : base.clean ? 'exposed' : 'unclean';
  return { verdict, detail, codes: [...trial.codes] };
}

class Trial {
  readonly #base: Base;
  readonly #random: SeededRandom;
  readonly codes = new Set<string>();
  readonly wrong: string[] = [];

  constructor(base: Base, random: SeededRandom) {
    this.#base = base;
    this.#random = random;
  }

  /** The result, or `undefined` for an error of the package. @throws any other error */
  async #attempt<T>(action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof VolsnapError) || error instanceof AssertionError) throw error;
      this.codes.add(error.code);
      return undefined;
    }
  }

  async readOnly(image: Image): Promise<void> {
    const { content, folder } = mount(image);
    const volume = await this.#open(content, folder, { readOnly: true });
    if (volume === undefined) return;
    await this.#compare(volume, 'read-only', new Map(this.#base.snapshots), this.#base.volume);
    await this.#attempt(() => volume.close());
  }

  async writable(image: Image): Promise<void> {
    const { size } = this.#base;
    const random = this.#random;
    const copy = new Map([...image].map(([name, bytes]) => [name, bytes.slice()]));
    const { content, folder } = mount(copy);
    const onDamaged = random.pick(['refuse', 'drop'] as const);
    const onVolumeChanged = random.pick(['refuse', 'keep', 'invalidate'] as const);
    const volume = await this.#open(content, folder, { onDamaged, onVolumeChanged });
    if (volume === undefined) return;
    const moments = new Map(this.#base.snapshots);
    const bytes = this.#base.volume.slice();
    const gone = new Set<string>();
    volume.on('deleted', ({ id }) => gone.add(id));
    // What was dropped while it was opened was said so.
    if (onDamaged === 'drop' || onVolumeChanged === 'invalidate')
      for (const id of this.#base.snapshots.keys())
        if (volume.recovery.warnings.length > 0 && !volume.snapshots.some((s) => s.id === id)) gone.add(id);
    const check = async (where: Volume, when: string) => {
      for (const id of gone) moments.delete(id);
      await this.#compare(where, when, moments, bytes);
    };
    await check(volume, 'writable');
    const write = async (target: Volume) => {
      const at = random.below(size);
      const piece = random.fill(new Uint8Array(Math.min(size - at, random.between(1, 2 * BLOCK_SIZE))));
      const done = await this.#attempt(async () => {
        await target.write(at, piece);
        return true;
      });
      if (done === true) bytes.set(piece, at);
    };
    await write(volume);
    const snapshot = await this.#attempt(() => volume.createSnapshot({ label: 'after' }));
    if (snapshot !== undefined) moments.set(snapshot.id, bytes.slice());
    await write(volume);
    await check(volume, 'after writing');
    if (random.chance(0.5)) await this.#attempt(() => volume.deleteOldest());
    await this.#attempt(() => volume.close());
    const again = await this.#open(content, folder, { onVolumeChanged: 'keep' });
    if (again === undefined) return;
    again.on('deleted', ({ id }) => gone.add(id));
    await write(again);
    await check(again, 'opened again');
    await this.#attempt(() => again.close());
  }

  #open(
    content: ConstructorParameters<typeof MemoryDevice>[0],
    folder: ImageFolder,
    options: VolumeOptions,
  ): Promise<Volume | undefined> {
    const writable = options.readOnly !== true;
    return this.#attempt(async () => {
      const volume = await Volume.open(new MemoryDevice(content, { name: 'device', writable }), {
        store: storeOf(this.#base.layout, folder),
        environment: steadyEnvironment(this.#random.fork('engine')),
        growth: { initial: 12 * BLOCK_SIZE, maximum: 32 * BLOCK_SIZE },
        ...options,
      });
      this.codes.add('opened');
      return volume;
    });
  }

  async #compare(
    volume: Volume,
    when: string,
    moments: ReadonlyMap<string, Uint8Array>,
    bytes: Uint8Array,
  ): Promise<void> {
    const now = await this.#attempt(() => volume.read(0, volume.size));
    if (now !== undefined && Buffer.compare(now, bytes) !== 0)
      this.wrong.push(`${when}: the volume is wrong`);
    const there = new Set<string>();
    for (const snapshot of volume.snapshots) {
      there.add(snapshot.id);
      await this.#compareSnapshot(snapshot, when, moments.get(snapshot.id));
      await this.#attempt(async () => {
        let last = 0;
        for await (const { offset, length } of volume.changedBlocks({ since: snapshot })) {
          if (offset < last || length <= 0 || offset + length > Math.max(volume.size, snapshot.size))
            throw new Error(`extent ${offset}+${length} after ${last} of a volume of ${volume.size} bytes`);
          last = offset + length;
        }
      });
    }
    for (const id of moments.keys())
      if (!there.has(id)) this.wrong.push(`${when}: snapshot ${id} is missing`);
  }

  async #compareSnapshot(snapshot: Snapshot, when: string, wanted: Uint8Array | undefined): Promise<void> {
    // Everything that can be asked of it must be answered.
    void [snapshot.label, snapshot.applicationInfo, snapshot.setId, snapshot.usedBytes, snapshot.problem];
    void [snapshot.allocatedBytes, snapshot.order, snapshot.state, Number(snapshot.createdAt)];
    if (this.#base.shadowCopies.has(snapshot.storeId)) {
      await this.#attempt(() => snapshot.read(0, snapshot.size));
      return;
    }
    if (wanted === undefined) {
      this.wrong.push(`${when}: there is a snapshot ${snapshot.id} that never was`);
      return;
    }
    const length = Math.min(snapshot.size, wanted.byteLength);
    const whole = await this.#attempt(() => snapshot.read(0, length));
    if (whole !== undefined) {
      if (Buffer.compare(whole, wanted.subarray(0, length)) !== 0 || length < wanted.byteLength)
        this.wrong.push(`${when}: snapshot ${snapshot.id} is wrong`);
      return;
    }
    // Where it can still be read, block by block, it must be right too.
    for (let at = 0; at < length; at += BLOCK_SIZE) {
      const size = Math.min(BLOCK_SIZE, length - at);
      const block = await this.#attempt(() => snapshot.read(at, size));
      if (block !== undefined && Buffer.compare(block, wanted.subarray(at, at + size)) !== 0) {
        this.wrong.push(`${when}: block ${at / BLOCK_SIZE} of snapshot ${snapshot.id} is wrong`);
        return;
      }
    }
  }
}
