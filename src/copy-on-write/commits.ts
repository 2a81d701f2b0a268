/**
 * Commits of copies: the entries of all that has been copied to a diff area meanwhile, one flush, published, the writers wake.
 *
 * Shared state: the copied batches that wait for a commit, and whether one is queued for them, changed only between awaits. The pool has one
 * worker, because a table chain has one end.
 */
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Attempts } from './attempts.js';
import { type Batch, blocksOf, type CopiedBatch, GROUP_BLOCKS } from './batch.js';
import type { CopyFigures } from './copy-host.js';
import type { Pools } from './pools.js';

/** What commits work with. */
export interface CommitsContext {
  readonly pools: Pools;
  readonly attempts: Attempts;
  readonly figures: CopyFigures;
  /** Are copies that are on their way to `area` still wanted? */
  readonly wants: (area: DiffArea) => boolean;
  /** The copies of a batch are durable and published. */
  readonly end: (batch: Batch) => void;
}

export class Commits {
  readonly #context: CommitsContext;
  #copied: CopiedBatch[] = [];
  /** Is a task of the pool on its way, or at work? It takes along whatever is copied until it ends. */
  #isQueued = false;
  /** Copies under way in another thread. */
  readonly #beingCopied = new Set<Promise<unknown>>();

  constructor(context: CommitsContext) {
    this.#context = context;
  }

  /** Is anything being committed? */
  get isUnderWay(): boolean {
    return this.#context.pools.commit.pending > 0;
  }

  /** The copies are written; they will be committed. */
  add(copied: CopiedBatch): void {
    this.#copied.push(copied);
    this.#commitSoon();
  }

  /** What `copying`, which never rejects, resolves to: copies made in another thread, for which a small commit waits. */
  async whileCopying<T>(copying: Promise<T>): Promise<T> {
    this.#beingCopied.add(copying);
    const copied = await copying;
    this.#beingCopied.delete(copying);
    return copied;
  }

  #commitSoon(): void {
    if (this.#isQueued) return;
    this.#isQueued = true;
    void this.#context.pools.commit.add(() => this.#commitAll());
  }

  /** Task of the commit pool: what is copied meanwhile comes next, unless somebody else waits for the pool. Never rejects. */
  async #commitAll(): Promise<void> {
    const { commit } = this.#context.pools;
    do {
      await this.#commit();
    } while (this.#copied.length > 0 && commit.size === 0);
    this.#isQueued = false;
    if (this.#copied.length > 0) this.#commitSoon();
  }

  /** Everything copied so far to one diff area becomes durable with one flush. Never rejects. */
  async #commit(): Promise<void> {
    // A flush costs as much as many copies, so a small group waits for what is being copied. (Such copies wait for devices only.)
    while (this.#beingCopied.size > 0 && blocksOf(this.#copied) < GROUP_BLOCKS)
      await Promise.race(this.#beingCopied);
    const area = this.#copied[0]?.batch.area;
    if (area === undefined) return;
    const group = this.#copied.filter(({ batch }) => batch.area === area);
    this.#copied = this.#copied.filter(({ batch }) => batch.area !== area);
    await this.#commitGroup(area, group);
  }

  /** Resolves when the pool may go on. */
  #commitGroup(area: DiffArea, group: readonly CopiedBatch[]): Promise<void> {
    const { pools, attempts, figures, wants, end } = this.#context;
    const batches = group.map(({ batch }) => batch);
    let appended = false;
    const commit = async () => {
      if (!wants(area)) return false;
      if (!appended) area.append(group);
      appended = true; // the table has them, written or not
      await area.writeEntries();
      await area.flush();
      for (const copied of group) area.publish(copied);
      area.publishUncommitted();
      return true;
    };
    // The pool is not kept while the host decides, or waits for room: merges go through it, and may be what makes room.
    let isFirst = true;
    return new Promise<void>((leavePool) => {
      const inPool = async () => {
        if (!isFirst) return (await pools.commit.add(commit)) === true;
        isFirst = false;
        return commit().finally(leavePool);
      };
      const onFailed = () => {
        if (appended) area.uncommitted.add(group);
      };
      void attempts.make(batches, inPool, onFailed).then((committed) => {
        if (!committed) return;
        figures.groups++;
        for (const batch of batches) end(batch);
      });
    });
  }
}
