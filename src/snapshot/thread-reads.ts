/**
 * Copies that threads which work on files read and compute the checksums of, for a large read of a snapshot: to verify them
 * costs the main thread more than everything else about such a read, and where neighbours lie in different files each block is a
 * call of its own besides. Only where the copies lie in files, and only while that is fast: from a cold disk more reads at a
 * time are quicker than two threads. There are two because one that always has something to do is left where it is by the scheduler,
 * which may be the processor that the main thread waits for.
 *
 * Memory that they do not see is filled from memory that they do, which is worth it only for copies that would otherwise keep
 * the main thread busy one by one.
 *
 * Shared state: the threads, once they are joined, and what was learnt of their speed; changed between awaits only.
 */
import { allDone } from '../all-done.js';
import { Backoff } from '../device/backoff.js';
import type { Loan } from '../device/block-device.js';
import { BLOCKS_MAX, type FileRun, FileThread, ThreadRole } from '../device/file-thread.js';
import { SHARED_READ_MIN, SharedMemory } from '../device/shared-memory.js';
import type { CopyReader } from '../diff-area/copy-reader.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';

/** Fewer blocks are not worth the way to a thread and back. */
const BLOCKS_MIN = SHARED_READ_MIN / BLOCK_SIZE;
/**
 * What a thread takes, for memory that it sees, and for other memory: blocks at a time; blocks of a run, on average, as longer ones need no
 * call of the main thread's for each block; requests before it with which it is behind. Where the main thread would do as well, they share.
 */
const SEEN = { blocks: BLOCKS_MAX, run: BLOCKS_MAX, waiting: 12 };
const BORROWED = { blocks: 32, run: 4, waiting: 2 };

/** What it needs of a diff area. */
export interface CopySource {
  readonly copies: Pick<CopyReader, 'lend' | 'check'>;
}

const ROLES = [ThreadRole.reads, ThreadRole.moreReads];

/** Copies of consecutive blocks in consecutive slots, none of zeros, and where they are wanted. */
export interface CopyRun {
  readonly area: CopySource;
  readonly block: BlockNumber;
  readonly slot: Slot;
  /** Whole blocks. */
  readonly target: Uint8Array;
}

/** What a thread has taken. */
export interface Batch {
  /** The run that follows. */
  readonly end: number;
  /** `false`: it is for the caller to do after all; the targets may have been written to. Rejects with IntegrityError. */
  readonly done: Promise<boolean>;
}

/** What a thread is asked for, and what it has until it answers. */
interface Lent {
  readonly runs: readonly FileRun[];
  readonly loans: readonly Loan[];
  /** Memory that stands in for the targets. */
  readonly borrowed: Uint8Array | undefined;
}

export class ThreadReads {
  readonly #processors: number | undefined;
  /** `undefined`: not joined yet; empty: there can be none. */
  #threads: readonly FileThread[] | undefined;
  readonly #backoff = new Backoff();

  constructor(processors?: number) {
    this.#processors = processors;
  }

  /**
   * Begins to read and verify runs from `from` on, which end before `end`: as many as a thread takes, all for the same memory.
   * @returns `undefined`: none of them
   */
  begin(runs: readonly CopyRun[], from: number, end: number): Batch | undefined {
    const first = runs[from];
    if (first === undefined) return undefined;
    const isSeen = SharedMemory.holds(first.target);
    const most = isSeen ? SEEN : BORROWED;
    if (this.#threads !== undefined && this.#free(most.waiting) === undefined) return undefined;
    const taken: CopyRun[] = [];
    let count = 0;
    for (let i = from; i < end && count < most.blocks; i++) {
      const run = runs[i];
      const blocks = (run?.target.byteLength ?? 0) / BLOCK_SIZE;
      if (run === undefined || count + blocks > BLOCKS_MAX) break;
      taken.push(run);
      count += blocks;
    }
    if (count < BLOCKS_MIN || count > most.run * taken.length || !this.#backoff.allows()) return undefined;
    const lent = lend(taken, isSeen ? undefined : count * BLOCK_SIZE);
    if (lent === undefined) return undefined;
    // Only now: over devices that lend nothing, as in the simulation, there are no threads whose end takes time of its own.
    this.#threads ??= ROLES.map((role) => FileThread.join(role, this.#processors)).filter(
      (thread) => thread !== undefined,
    );
    const thread = this.#free(most.waiting);
    if (thread === undefined) {
      giveBack(lent);
      return undefined;
    }
    return { end: from + taken.length, done: this.#read(thread, taken, lent) };
  }

  /** The thread with the fewest requests before it, if these are fewer than `limit`. */
  #free(limit: number): FileThread | undefined {
    let free: FileThread | undefined;
    let fewest = limit;
    for (const thread of this.#threads ?? []) {
      // Reads that are done at once may keep the event loop from turning for long.
      thread.takeAnswers();
      if (thread.waiting >= fewest) continue;
      free = thread;
      fewest = thread.waiting;
    }
    return free;
  }

  async #read(thread: FileThread, runs: readonly CopyRun[], lent: Lent): Promise<boolean> {
    try {
      return await thread.sum(lent.runs, (answer) => {
        if (answer === undefined) return false;
        this.#backoff.report(answer.isSlow);
        let done = 0;
        for (const { area, block, slot, target } of runs) {
          const from = done;
          for (let i = 0; i * BLOCK_SIZE < target.byteLength; i++)
            area.copies.check(block + i, slot + i, answer.sums[done++] ?? 0);
          if (lent.borrowed !== undefined)
            target.set(lent.borrowed.subarray(from * BLOCK_SIZE, done * BLOCK_SIZE));
        }
        return true;
      });
    } finally {
      giveBack(lent);
    }
  }

  /** Ends the threads after their last user. No read may be under way. */
  async close(): Promise<void> {
    const threads = this.#threads ?? [];
    this.#threads = undefined;
    await allDone(threads.map((thread) => thread.leave()));
  }
}

/** @param borrow bytes of memory to stand in for the targets; `undefined`: they are seen themselves */
function lend(runs: readonly CopyRun[], borrow: ByteLength | undefined): Lent | undefined {
  const lentRuns: FileRun[] = [];
  const loans: Loan[] = [];
  let borrowed: Uint8Array | undefined;
  let lent: Lent | undefined;
  let length = 0;
  try {
    for (const { area, slot, target } of runs) {
      const part = area.copies.lend(slot, target.byteLength / BLOCK_SIZE);
      if (part === undefined) return undefined;
      loans.push(part.loan);
      // Only now: where nothing is lent nobody needs that memory.
      const memory = SharedMemory.get();
      if (borrow !== undefined) borrowed ??= memory?.take(borrow);
      const to = borrow === undefined ? memory?.positionOf(target) : borrowed && borrowed.byteOffset + length;
      if (to === undefined) return undefined;
      const { descriptor } = part.loan;
      lentRuns.push({ descriptor, source: part.position, target: to, length: target.byteLength });
      length += target.byteLength;
    }
    lent = { runs: lentRuns, loans, borrowed };
    return lent;
  } finally {
    if (lent === undefined) giveBack({ loans, borrowed });
  }
}

function giveBack({ loans, borrowed }: Pick<Lent, 'loans' | 'borrowed'>): void {
  for (const loan of loans) loan.end();
  if (borrowed !== undefined) SharedMemory.get()?.give(borrowed);
}
