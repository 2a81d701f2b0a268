/**
 * Copies made by the thread that works on files: originals are read, looked at and written to the diff area without passing
 * through the main thread. Only where volume and diff area are files, and only while that is fast: one thread reads one block after
 * the other, which a cold disk answers more slowly than several reads at a time.
 *
 * Shared state: the thread, once it is joined, and what was learnt of its speed; changed between awaits only.
 */
import { Backoff } from '../device/backoff.js';
import type { BlockDevice, Loan } from '../device/block-device.js';
import { type CopyAnswer, FileThread, ThreadRole } from '../device/file-thread.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock, type Slot } from '../units.js';

/** Requests before it with which the thread is behind. */
const WAITING_MAX = 8;

/** What became of the blocks of a batch, in their order. */
export type ThreadCopied = Pick<CopyAnswer, 'sums' | 'zeros'>;

/** What copying needs of a thread; a simulation has its own. */
export interface ApartCopier {
  /** Whether a batch would be copied soon. */
  readonly isFree: boolean;
  /**
   * Copies each block, unless it is all zero, to the slot reserved for it. Not durable yet.
   * @param blocks ascending
   * @returns `undefined`: none counts as copied, whatever the slots hold now
   */
  copy(
    volume: BlockDevice,
    area: DiffArea,
    blocks: readonly BlockNumber[],
    slots: readonly Slot[],
  ): Promise<ThreadCopied | undefined>;
  close(): Promise<void>;
}

export class ThreadCopier implements ApartCopier {
  #thread: FileThread | undefined;
  readonly #backoff = new Backoff();

  get isFree(): boolean {
    return (this.#thread === undefined || isFree(this.#thread)) && this.#backoff.allows();
  }

  async copy(
    volume: BlockDevice,
    area: DiffArea,
    blocks: readonly BlockNumber[],
    slots: readonly Slot[],
  ): Promise<ThreadCopied | undefined> {
    const first = offsetOfBlock(blocks[0] ?? 0);
    const end = Math.min(offsetOfBlock((blocks.at(-1) ?? 0) + 1), volume.size);
    const targets = slots.map((slot) => area.positionOf(slot));
    const lowest = Math.min(...targets);
    const source = volume.lend?.(first, end - first, 'read');
    let target: Loan | undefined;
    try {
      target = area.file.device.lend?.(lowest, Math.max(...targets) + BLOCK_SIZE - lowest, 'write');
      if (source === undefined || target === undefined) return undefined;
      // Only now: over devices that lend nothing, as in the simulation, there is no thread whose end takes time of its own.
      this.#thread ??= FileThread.join(ThreadRole.copies);
      const thread = this.#thread;
      if (thread === undefined || !isFree(thread)) return undefined;
      const from = source.origin;
      const to = target.origin;
      const answer = await thread.copy({
        from: source.descriptor,
        to: target.descriptor,
        sources: blocks.map((block) => from + offsetOfBlock(block)),
        targets: to === 0 ? targets : targets.map((offset) => to + offset),
        lastLength: end - offsetOfBlock(blocks.at(-1) ?? 0),
      });
      if (answer !== undefined) this.#backoff.report(answer.isSlow);
      return answer;
    } finally {
      source?.end();
      target?.end();
    }
  }

  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.leave();
  }
}

const isFree = (thread: FileThread): boolean => thread.waiting < WAITING_MAX;
