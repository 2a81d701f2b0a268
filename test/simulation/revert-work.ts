/** Reverts, and what cancels them, with what the model has to know of them. */
import { NotFoundError, type Snapshot, type Volume } from '../../src/index.js';
import type { VolumeModel } from '../../src/testing/index.js';
import type { ModelRevert, PendingCall } from '../../src/testing/volume-model.js';
import { type Calls, GONE, type Permitted } from './calls.js';
import type { RunCounters } from './counters.js';
import { NO_BLOCKS, zeroBlocksOf } from './unused.js';

export const REVERTING: Permitted = ['REVERT_IN_PROGRESS'];
const NOT_REVERTED: Permitted = ['HOLD_TIMEOUT', 'NO_SPACE', 'LIMIT', ...REVERTING, ...GONE];
const NOT_CANCELLED: Permitted = ['NOT_FOUND', 'HOLD_TIMEOUT'];

interface AskedRevert {
  readonly content: Uint8Array;
  readonly asked: PendingCall;
  readonly unused: ReadonlySet<number>;
  seen?: ModelRevert;
}

/** How often something is in use. */
class Tally<T> {
  readonly #counts = new Map<T, number>();

  has(item: T): boolean {
    return (this.#counts.get(item) ?? 0) > 0;
  }

  add(item: T): void {
    this.#counts.set(item, (this.#counts.get(item) ?? 0) + 1);
  }

  delete(item: T): void {
    this.#counts.set(item, (this.#counts.get(item) ?? 1) - 1);
  }
}

export interface RevertTools {
  readonly model: VolumeModel;
  readonly counters: Pick<RunCounters, 'reverts' | 'revertsCancelled'>;
  readonly calls: Calls;
  /** Reads all of a snapshot, checked; `undefined` if that could not be. */
  readonly read: (snapshot: Snapshot) => Promise<Uint8Array | undefined>;
  /** A call that may fail for lack of room besides, where the policy lets that be. */
  readonly errorOf: Calls['errorOf'];
  /** What a copy within the volume reads is what its model has read before. */
  readonly whileNothingIsCopied: (volume: Volume, action: () => Promise<void>) => Promise<void>;
}

interface AskedOptions {
  readonly keep: boolean;
  readonly label: string;
  readonly holdTimeoutMs: number;
}

export class RevertWork {
  readonly #tools: RevertTools;
  /** Those that have not begun, by the label of the snapshot that is taken first: what they go to, and since when that may be seen. */
  readonly #asked = new Map<string, AskedRevert>();
  #isCancelling = false;
  /** Snapshots that are being written, and those that a revert to is being asked for: it must be known what they hold. */
  readonly writes = new Tally<Snapshot>();
  readonly targets = new Tally<Snapshot>();
  /** Snapshots that are to go with the revert that they were taken for. */
  readonly unwanted = new Set<string>();
  /** Those of them that somebody wanted to hold: they may stay. */
  readonly #wanted = new Set<string>();
  /** Has one been asked for? Then what the volume's device holds need not be the volume. */
  mayRevert = false;

  constructor(tools: RevertTools) {
    this.#tools = tools;
  }

  /** The volume was opened: what was under way before a crash never ends. */
  begin(): void {
    this.#asked.clear();
    this.#isCancelling = false;
    const { model } = this.#tools;
    // Opening deletes those whose revert is over, before anybody listens.
    for (const label of this.unwanted) if (model.has(label)) model.beginDelete(label);
  }

  /** What another one knows, of a world that is left to itself. */
  follow(other: RevertWork): void {
    for (const label of other.unwanted) this.unwanted.add(label);
    for (const label of other.#wanted) this.#wanted.add(label);
    this.mayRevert = other.mayRevert;
  }

  /** Is one asked for, or under way? */
  isAt({ figures }: Volume): boolean {
    return figures.revert !== undefined || this.#asked.size > 0;
  }

  /** Somebody holds a snapshot. */
  want(label: string): void {
    this.#wanted.add(label);
  }

  /** A snapshot was taken. */
  created(label: string): void {
    const revert = this.#asked.get(label);
    if (revert === undefined) return;
    const { model } = this.#tools;
    // Writes are held: this is the moment. What it goes back to is seen, and may be durable, from now on.
    model.endSnapshot(label);
    revert.seen = model.beginRevert(revert.content, revert.asked, revert.unused);
  }

  async revert(volume: Volume, { age, ...options }: AskedOptions & { readonly age: number }): Promise<void> {
    const target = volume.snapshots[age % Math.max(1, volume.snapshots.length)];
    // What is being written to it may be in what the volume goes back to, or not.
    if (target === undefined || this.writes.has(target)) return;
    this.targets.add(target);
    await this.#revertTo(volume, target, options);
    this.targets.delete(target);
  }

  async #revertTo(
    volume: Volume,
    target: Snapshot,
    { keep, label, holdTimeoutMs }: AskedOptions,
  ): Promise<void> {
    const { model, counters, calls, read, whileNothingIsCopied } = this.#tools;
    // Read, it holds one value in each sector and no other.
    const content = await read(target);
    if (content === undefined) return;
    this.mayRevert = true;
    const unused = target.unusedBytes > 0 ? zeroBlocksOf(content) : NO_BLOCKS;
    const revert: AskedRevert = { content, unused, asked: model.tick() };
    this.#asked.set(label, revert);
    if (!keep) this.unwanted.add(label);
    model.beginSnapshot(label);
    const isOther = () => target.size !== volume.size;
    const wasOther = isOther();
    const begin = () => volume.revert(target, { label, holdTimeoutMs, keepPrevious: keep }).begun;
    const permitted: Permitted = [...NOT_REVERTED, 'UNSUPPORTED'];
    const error = await calls.errorOf(permitted, () => whileNothingIsCopied(volume, begin));
    // Only where the volume has grown since.
    if (error?.code === 'UNSUPPORTED' && !wasOther && !isOther()) throw error;
    if (error === undefined && revert.seen !== undefined && wasOther)
      calls.complaints.push(`the volume, of ${volume.size} bytes, is put back to one of ${target.size}`);
    this.#asked.delete(label);
    if (revert.seen !== undefined) {
      model.endRevert(revert.seen, error === undefined ? 'done' : 'failed');
      if (error === undefined) counters.reverts++;
    } else if (model.has(label)) {
      // It was one that was under way already, or nothing came of it; after an error of the device the next opening tells.
      const isAbsent = error === undefined || error.code !== 'DEVICE';
      model.endSnapshot(label, isAbsent ? 'failed' : 'uncertain');
    }
  }

  /** All that was written since the revert began goes. */
  async cancel(volume: Volume): Promise<void> {
    const { model, counters, read, errorOf, whileNothingIsCopied } = this.#tools;
    const status = () => volume.figures.revert;
    const { previousId, phase } = status() ?? {};
    const previous = volume.snapshots.find(({ id }) => id === previousId);
    if (previous === undefined || phase === 'cancelling' || this.#isCancelling) return;
    this.#isCancelling = true;
    const content = await read(previous);
    if (content !== undefined && status()?.previousId === previousId) {
      const seen = model.beginRevert(content);
      const error = await errorOf(NOT_CANCELLED, () =>
        whileNothingIsCopied(volume, async () => {
          if (status()?.previousId !== previousId) throw new NotFoundError('the revert is over');
          await volume.reverting?.cancel();
        }),
      );
      model.endRevert(seen, error === undefined ? 'done' : 'failed');
      if (error === undefined) counters.revertsCancelled++;
    }
    this.#isCancelling = false;
  }

  /** Snapshots that should have gone with a revert that is over. */
  unwantedIn({ snapshots, figures }: Volume): string[] {
    if (figures.revert !== undefined) return [];
    const mustGo = (label: string) => this.unwanted.has(label) && !this.#wanted.has(label);
    return snapshots.flatMap(({ label }) => (label !== undefined && mustGo(label) ? [label] : []));
  }
}
