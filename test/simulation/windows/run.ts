/**
 * Writes to a volume with shadow copies of Windows in a simulated world, from one seed: clients write, the device fails, everything crashes, and
 * afterwards every shadow copy must read as Windows left it, but for what it left undefined: blocks that nothing used, and the stores.
 *
 * After each crash the bytes on the disk are read by `ForeignStore` alone, so nothing that the writer knows is trusted.
 */
import { MemoryDevice, ReadOnlyError, Volume } from '../../../src/index.js';
import { ModelMismatch } from '../../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import type { Expected } from './expected.js';
import {
  noTrialCounters,
  runTrial,
  setUp,
  Trial,
  type TrialCounters,
  type TrialOptions,
  type TrialParts,
} from './trial.js';

export interface WindowsCounters extends TrialCounters {
  /** Of the longest newest table; a block holds 508. */
  entriesMax: number;
}

export const noWindowsCounters = (): WindowsCounters => ({ ...noTrialCounters(), entriesMax: 0 });

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runWindows(
  seed: number | string,
  options: TrialOptions,
  counters: WindowsCounters,
): Promise<number> {
  const parts = await setUp(`windows ${seed}`, options, () => 0);
  return runTrial(new WindowsRun(parts, counters), seed, options);
}

class WindowsRun extends Trial {
  readonly #counters: WindowsCounters;

  constructor(parts: TrialParts, counters: WindowsCounters) {
    super(parts, counters, 0.8);
    this.#counters = counters;
  }

  protected async live(): Promise<void> {
    const pace = { closes: 0.2, steps: [20, 100, 400, 2000] };
    const work = (volume: Volume) => this.clients([2, 10, 30], () => this.#operate(volume));
    await this.use(() => this.#open(), work, pace);
  }

  async #open(): Promise<Volume> {
    const volume = await Volume.open(this.world.device('volume'), {
      shadowCopies: this.policy,
      environment: this.world.environment(),
    });
    const stateOf = (id: string, state: Expected['state']) => {
      const expected = this.expected.find(id);
      if (expected !== undefined) expected.state = state;
    };
    volume.on('deleting', ({ id }) => stateOf(id, 'deleting'));
    volume.on('deleted', ({ id }) => {
      this.#counters.deleted++;
      stateOf(id, 'gone');
    });
    return volume;
  }

  protected async compare(bytes: Uint8Array): Promise<void> {
    this.model.reconcileVolume(this.shown(bytes));
    const store = await ForeignStore.open(new MemoryDevice(bytes));
    this.#counters.entriesMax = Math.max(this.#counters.entriesMax, store.snapshots.at(-1)?.entryCount ?? 0);
    await this.expected.compare(store.snapshots);
  }

  async #operate(volume: Volume): Promise<void> {
    const kind = this.random.below(40);
    if (kind === 0) return this.random.chance(0.3) ? volume.deleteOldest() : undefined;
    if (kind < 3) return this.#writeStore(volume);
    if (kind < 10) return this.#readSnapshot(volume);
    if (kind < 13) return this.flush(volume);
    if (kind < 16) return this.read(volume);
    return this.write(volume);
  }

  /** As long as there are shadow copies it must be refused; and whatever it would have destroyed is compared after the crash. */
  async #writeStore(volume: Volume): Promise<void> {
    const newest = this.expected.all.at(-1);
    const block = this.random.pick([...this.image.stores.map(([start]) => start), 0]);
    const [oldest] = this.expected.all;
    if (this.policy === 'drop' || newest?.state !== 'there' || oldest?.state !== 'there') return;
    const offset = block === 0 ? 0x1e00 : block * BLOCK_SIZE;
    await volume.write(offset, new Uint8Array(SECTOR_SIZE)).then(
      () => {
        // Deleted meanwhile, it is a block as any other; the model leaves it out all the same.
        if (oldest.state === 'there') throw new ModelMismatch(`a store was overwritten at ${offset}`);
      },
      (error: unknown) => {
        if (!(error instanceof ReadOnlyError)) throw error;
      },
    );
  }

  async #readSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.random.pick([...volume.snapshots, undefined]);
    const expected = snapshot && this.expected.find(snapshot.storeId);
    if (snapshot === undefined || expected === undefined) return;
    const length = this.random.pick([1, 4, 12]) * BLOCK_SIZE;
    // Mostly where others write.
    const area = this.random.chance(0.7) ? 16 * BLOCK_SIZE : snapshot.size;
    const offset = this.random.below((area - length) / SECTOR_SIZE) * SECTOR_SIZE;
    this.expected.check(expected, offset, await snapshot.read(offset, length));
  }
}
