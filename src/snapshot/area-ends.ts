/**
 * The length of diff areas: they grow while copies come to them, and their unused ends go back.
 *
 * Shared state: `SnapshotRecord.resizing` lets one change of length happen at a time.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { ControlFile } from '../store/control-file.js';
import type { ByteLength } from '../units.js';
import type { Emit } from './events.js';
import type { SnapshotRecord } from './record.js';

export class AreaEnds {
  readonly #control: ControlFile;
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #copying: () => CopyOnWrite;
  readonly #onGivenBack: () => void;

  constructor(
    control: ControlFile,
    pools: Pools,
    emit: Emit,
    copying: () => CopyOnWrite,
    onGivenBack: () => void,
  ) {
    this.#control = control;
    this.#pools = pools;
    this.#emit = emit;
    this.#copying = copying;
    this.#onGivenBack = onGivenBack;
  }

  /** Does something to a diff area that must not be removed meanwhile; resolves to false if it is gone already. */
  async #whileThere(record: SnapshotRecord, action: () => Promise<void>): Promise<boolean> {
    return record.resizing.runExclusive(async () => {
      // A stand-in has its size for good, and nothing of it is in the control file.
      if (record.isGone || record.hasStandIn) return false;
      await action();
      return true;
    });
  }

  /** @returns false if it is gone already @throws NoSpaceError, DeviceError */
  grow(record: SnapshotRecord, area: DiffArea, length: ByteLength): Promise<boolean> {
    return this.#whileThere(record, () =>
      area.grow(length, (change) => this.#control.update(record.id, change)),
    );
  }

  /** Gives back what nobody counts on. */
  async trim(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await this.#whileThere(record, () => area.trim((change) => this.#control.update(record.id, change)));
  }

  /** Gives back the unused end of a diff area that no copies come to. */
  async giveBack(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await this.#whileThere(record, () => area.trimAll((change) => this.#control.update(record.id, change)));
    this.#onGivenBack();
  }

  /**
   * No copies come to this one any more: what it has is recorded as durable, and its unused space goes back. Runs in the
   * background.
   */
  retire(record: SnapshotRecord, area: DiffArea): void {
    void this.#pools.background.add(async () => {
      try {
        await this.retireNow(record, area);
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'giving back the unused end of its diff area',
          error,
        });
      }
    });
  }

  /** Task of the background pool. Where copies come again, or which is on its way out, it is left alone. */
  async retireNow(record: SnapshotRecord, area: DiffArea): Promise<void> {
    // The table is the commit pool's; it waits for nothing but devices.
    const isRetired = await this.#pools.commit.add(
      async () => (await record.whileThere(() => this.#writeMark(record, area))) === true,
    );
    if (isRetired === true) await this.giveBack(record, area);
  }

  async #writeMark(record: SnapshotRecord, area: DiffArea): Promise<boolean> {
    if (record.deleted !== undefined || this.#copying().takesCopies(area)) return false;
    if (record.hasStandIn || record.area !== area) return false;
    // Also what an earlier commit could not write: a watermark covers all entries.
    await area.settle();
    await area.writeWatermark();
    return true;
  }
}
