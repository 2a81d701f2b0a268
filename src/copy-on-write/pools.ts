/**
 * The three worker pools of a volume.
 *
 * Background work (growth, trimming, deletion) may wait for copies, copies for commits, commits for the device only.
 * Never the other way round, so no waiting has a cycle.
 */
import PQueue from 'p-queue';

/** Batches that are read and written at the same time. With more, each is smaller: they gather while none can begin. */
const COPIES_AT_ONCE = 2;

export class Pools {
  /** Reads originals and writes copies. */
  readonly copy = new PQueue({ concurrency: COPIES_AT_ONCE });
  /** Writes tables and flushes; one group at a time, because a table chain has one end. */
  readonly commit = new PQueue({ concurrency: 1 });
  /** Whatever nobody waits for at once. */
  readonly background = new PQueue({ concurrency: 1 });

  /** Resolves when nothing is queued or running, in the order in which work can create further work. */
  async idle(): Promise<void> {
    await this.copy.onIdle();
    await this.commit.onIdle();
    await this.background.onIdle();
  }

  get lengths(): { copy: number; commit: number; background: number } {
    const length = (queue: PQueue) => queue.size + queue.pending;
    return { copy: length(this.copy), commit: length(this.commit), background: length(this.background) };
  }
}
