/**
 * Writes down which blocks a revert need not put back any more, durably, for all who wait at once:
 * flush of the volume → marks into the table chain of the snapshot that was taken at the beginning → flush of that.
 *
 * A mark is written only after what it is about is durable. So after any crash a block without one can be put back once
 * more: whatever was written to it since was not acknowledged.
 *
 * Shared state: the list of those who wait, changed between awaits only; the table chain belongs to the commit pool.
 */
import type { Pools } from '../copy-on-write/pools.js';
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { MarkKind, type RevertMark } from '../format/revert-mark.js';
import type { BlockNumber } from '../units.js';

interface Waiting {
  readonly first: BlockNumber;
  readonly count: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class DoneMarks {
  readonly #volume: BlockDevice;
  readonly #area: DiffArea;
  readonly #pools: Pools;
  #waiting: Waiting[] = [];
  #isWriting = false;

  constructor(volume: BlockDevice, area: DiffArea, pools: Pools) {
    this.#volume = volume;
    this.#area = area;
    this.#pools = pools;
  }

  /** What these blocks are to hold was written to the volume. Resolves when that, and the mark, are durable. */
  record(first: BlockNumber, count: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ first, count, resolve, reject });
      if (!this.#isWriting) void this.#writeAll();
    });
  }

  /** Never rejects. */
  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    // Those who come in the same turn go along.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      try {
        await this.#volume.flush();
        await this.#pools.commit.add(() => this.#write(marksOf(group)));
        for (const { resolve } of group) resolve();
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#isWriting = false;
  }

  /** Task of the commit pool. */
  async #write(marks: readonly RevertMark[]): Promise<void> {
    this.#area.appendMarks(marks);
    await this.#area.writeEntries();
    await this.#area.flush();
  }
}

/** Neighbours share a mark. */
function marksOf(group: readonly Waiting[]): RevertMark[] {
  const marks: { kind: MarkKind; first: BlockNumber; count: number }[] = [];
  for (const { first, count } of [...group].sort((a, b) => a.first - b.first)) {
    const last = marks.at(-1);
    if (last !== undefined && last.first + last.count === first) last.count += count;
    else marks.push({ kind: MarkKind.done, first, count });
  }
  return marks;
}
