/**
 * Copies that the thread which works on files reads and computes the checksums of, for a large read of a snapshot: to verify them
 * costs the main thread more than everything else about such a read, and where neighbours lie in different files each block is a
 * call of its own besides. Only where the copies lie in files, and only while that is fast: from a cold disk several reads at a
 * time are quicker than one thread.
 *
 * Memory that the thread does not see is filled from memory that it does, which is worth it only for copies that would otherwise keep
 * the main thread busy one by one.
 *
 * Shared state: the thread, once it is joined, and what was learnt of its speed; changed between awaits only.
 */
import { Backoff } from '../device/backoff.js';
import type { Loan } from '../device/block-device.js';
import { BLOCKS_MAX, FileThread, type SumRequest } from '../device/file-thread.js';
import { SHARED_READ_MIN, SharedMemory } from '../device/shared-memory.js';
import type { CopyReader } from '../diff-area/copy-reader.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';

/** Fewer blocks are not worth the way to the thread and back. */
const BLOCKS_MIN = SHARED_READ_MIN / BLOCK_SIZE;
/**
 * What the thread takes, for memory that it sees, and for other memory: blocks at a time; blocks of a run, on average, as longer ones need no
 * call of the main thread's for each block; requests before it with which it is behind. Where the main thread would do as well, the two share.
 */
const SEEN = { blocks: BLOCKS_MAX, run: BLOCKS_MAX, waiting: 12 };
const BORROWED = { blocks: 32, run: 4, waiting: 2 };

/** What it needs of a diff area. */
export interface CopySource {
  readonly copies: Pick<CopyReader, 'lend' | 'check'>;
  checksumSeed(block: BlockNumber, slot: Slot): number;
}

/** Copies of consecutive blocks in consecutive slots, none of zeros, and where they are wanted. */
export interface CopyRun {
  readonly area: CopySource;
  readonly block: BlockNumber;
  readonly slot: Slot;
  /** Whole blocks. */
  readonly target: Uint8Array;
}

/** What the thread has taken. */
export interface Batch {
  /** The run that follows. */
  readonly end: number;
  /** `false`: it is for the caller to do after all; the targets may have been written to. Rejects with IntegrityError. */
  readonly done: Promise<boolean>;
}

/** What the thread is asked for, and what it has until it answers. */
interface Lent extends SumRequest {
  readonly loans: readonly Loan[];
  /** Memory that stands in for the targets. */
  readonly borrowed: Uint8Array | undefined;
}

export class ThreadReads {
  readonly #processors: number | undefined;
  #thread: FileThread | undefined;
  #isMissing = false;
  readonly #backoff = new Backoff();

  constructor(processors?: number) {
    this.#processors = processors;
  }

  /**
   * Begins to read and verify runs from `from` on, which end before `end`: as many as the thread takes, all for the same memory.
   * @returns `undefined`: none of them
   */
  begin(runs: readonly CopyRun[], from: number, end: number): Batch | undefined {
    const first = runs[from];
    if (this.#isMissing || first === undefined) return undefined;
    const isSeen = SharedMemory.holds(first.target);
    const most = isSeen ? SEEN : BORROWED;
    // Reads that are done at once may keep the event loop from turning for long.
    this.#thread?.takeAnswers();
    const isFree = () => this.#thread === undefined || this.#thread.waiting < most.waiting;
    if (!isFree()) return undefined;
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
    // Only now: over devices that lend nothing, as in the simulation, there is no thread whose end takes time of its own.
    this.#thread ??= FileThread.join(this.#processors);
    this.#isMissing = this.#thread === undefined;
    if (this.#thread === undefined || !isFree()) {
      giveBack(lent);
      return undefined;
    }
    return { end: from + taken.length, done: this.#read(this.#thread, taken, lent) };
  }

  async #read(thread: FileThread, runs: readonly CopyRun[], lent: Lent): Promise<boolean> {
    try {
      const answer = await thread.sum(lent);
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
    } finally {
      giveBack(lent);
    }
  }

  /** Ends the thread after its last user. No read may be under way. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.leave();
  }
}

/** @param borrow bytes of memory to stand in for the targets; `undefined`: they are seen themselves */
function lend(runs: readonly CopyRun[], borrow: ByteLength | undefined): Lent | undefined {
  const memory = SharedMemory.get();
  const borrowed = borrow === undefined ? undefined : memory?.take(borrow);
  const loans: Loan[] = [];
  const [files, sources, targets, sums]: [number[], number[], number[], number[]] = [[], [], [], []];
  const lent = { files, sources, targets, sums, loans, borrowed };
  let isWhole = false;
  try {
    if (borrow !== undefined && borrowed === undefined) return undefined;
    for (const { area, block, slot, target } of runs) {
      const count = target.byteLength / BLOCK_SIZE;
      const part = area.copies.lend(slot, count);
      const to =
        borrowed === undefined ? memory?.positionOf(target) : borrowed.byteOffset + files.length * BLOCK_SIZE;
      if (part === undefined || to === undefined) return undefined;
      loans.push(part.loan);
      for (let i = 0; i < count; i++) {
        files.push(part.loan.descriptor);
        sources.push(part.position + i * BLOCK_SIZE);
        targets.push(to + i * BLOCK_SIZE);
        sums.push(area.checksumSeed(block + i, slot + i));
      }
    }
    isWhole = true;
    return lent;
  } finally {
    if (!isWhole) giveBack(lent);
  }
}

function giveBack({ loans, borrowed }: Lent): void {
  for (const loan of loans) loan.end();
  if (borrowed !== undefined) SharedMemory.get()?.give(borrowed);
}
