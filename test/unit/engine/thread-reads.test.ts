/** Reads whose checksums another thread computes: the same figures as on this one, and never anybody left waiting. */
import { type FileHandle, open, readdir, readFile } from 'node:fs/promises';
import { getPriority } from 'node:os';
import { Worker } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { FileThread } from '../../../src/device/file-thread.js';
import { SharedMemory } from '../../../src/device/shared-memory.js';
import { IntegrityError } from '../../../src/errors.js';
import { type CopyRun, type CopySource, ThreadReads } from '../../../src/snapshot/thread-reads.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { pattern } from '../device/contract.js';
import { shared } from '../device/shared.js';
import { temporaryFile } from '../device/temporary.js';

const BLOCKS = 24;
const SIZE = BLOCKS * BLOCK_SIZE;
const CONTENT = pattern(3 * SIZE);

/** The threads that were given work. */
const threads = new Set<Worker>();
const { ref } = Worker.prototype;
beforeEach(() => {
  threads.clear();
  vi.spyOn(Worker.prototype, 'ref').mockImplementation(function (this: Worker) {
    threads.add(this);
    ref.call(this);
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** A file of copies, the one in slot n at `from` + 16 KiB * n, in the place of a diff area. */
class Area implements CopySource {
  /** Loans that have not ended. */
  lent = 0;
  readonly checked: number[] = [];
  readonly #file: FileHandle;
  readonly #from: number;
  rotten: number | undefined;

  constructor(file: FileHandle, from = 0) {
    this.#file = file;
    this.#from = from;
  }

  readonly copies: CopySource['copies'] = {
    lend: (slot) => {
      this.lent++;
      const end = () => void this.lent--;
      const position = this.#from + slot * BLOCK_SIZE;
      return { loan: { descriptor: this.#file.fd, origin: 0, end }, position };
    },
    check: (block, slot, sum) => {
      const at = this.#from + slot * BLOCK_SIZE;
      const data = CONTENT.subarray(at, at + BLOCK_SIZE);
      expect(sum, `block ${block}`).toBe(crc32(data));
      this.checked.push(slot);
      if (slot === this.rotten) throw new IntegrityError(`slot ${slot} rotted`);
    },
  };
}

async function areaOf(from = 0) {
  const file = await open(await temporaryFile(CONTENT));
  onTestFinished(() => file.close());
  return new Area(file, from);
}

function readsOf(processors = 2) {
  const reads = new ThreadReads(processors);
  onTestFinished(() => reads.close());
  return reads;
}

/** One run of all blocks. */
const wholeOf = (area: Area, target: Uint8Array, slot = 0): CopyRun[] => [
  { area, block: 100, slot, target: target.subarray(0, SIZE) },
];
/** A run for each block: of two areas in turn, from the last slot to the first. */
const scattered = (areas: readonly [Area, Area], target: Uint8Array): CopyRun[] =>
  Array.from({ length: BLOCKS }, (_, i) => ({
    area: areas[i % 2 === 0 ? 0 : 1],
    block: i,
    slot: BLOCKS - 1 - i,
    target: target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE),
  }));

const begin = (reads: ThreadReads, runs: readonly CopyRun[]) => reads.begin(runs, 0, runs.length);
/** Reads until the thread does it: while it starts, it does not. */
const byThread = (reads: ThreadReads, runs: readonly CopyRun[]) =>
  vi.waitUntil(async () => (await begin(reads, runs)?.done) === true, { timeout: 10_000, interval: 5 });

describe('the thread', () => {
  test('reads a run, and has every copy checked', async () => {
    const [reads, area] = [readsOf(), await areaOf(777)];
    const whole = shared(3 * SIZE).fill(0);
    const target = whole.subarray(1000, 1000 + SIZE);
    await byThread(reads, wholeOf(area, target));
    expect(Buffer.compare(target, CONTENT.subarray(777, 777 + SIZE))).toBe(0);
    expect(whole[999]).toBe(0);
    expect(whole[1000 + SIZE]).toBe(0);
    expect(area.checked).toEqual(Array.from({ length: BLOCKS }, (_, i) => i));
    expect(area.lent).toBe(0);
    expect(threads.size).toBe(1);
  });

  test.each([
    ['memory that it sees', () => shared(SIZE)],
    ['other memory', () => new Uint8Array(SIZE)],
  ])('reads copies that lie anywhere in several files, into %s', async (_, memory) => {
    const reads = readsOf();
    const areas: [Area, Area] = [await areaOf(), await areaOf(SIZE)];
    const target = memory().fill(0);
    await byThread(reads, scattered(areas, target));
    for (let i = 0; i < BLOCKS; i++) {
      const at = (i % 2) * SIZE + (BLOCKS - 1 - i) * BLOCK_SIZE;
      const block = target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
      expect(Buffer.compare(block, CONTENT.subarray(at, at + BLOCK_SIZE)), `block ${i}`).toBe(0);
    }
    expect(areas.map(({ lent }) => lent)).toEqual([0, 0]);
  });

  test('tells of a copy that rotted, whose bytes do not get into other memory', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const target = new Uint8Array(SIZE);
    await byThread(reads, scattered([area, area], target));
    target.fill(0);
    area.rotten = 7;
    await expect(begin(reads, scattered([area, area], target))?.done).rejects.toThrow('slot 7 rotted');
    const rotten = (BLOCKS - 1 - 7) * BLOCK_SIZE;
    expect(target.subarray(rotten).every((byte) => byte === 0)).toBe(true);
    expect(area.lent).toBe(0);
  });

  test.runIf(process.platform === 'linux')(
    'leaves the processor to others, the main thread included',
    async () => {
      const [reads, area] = [readsOf(), await areaOf()];
      await byThread(reads, wholeOf(area, shared(SIZE)));
      const niceOf = async (task: string) => {
        const fields = (await readFile(`/proc/self/task/${task}/stat`, 'latin1'))
          .replace(/.*\)/s, '')
          .split(' ');
        return Number(fields[17]);
      };
      const tasks = await readdir('/proc/self/task');
      const values = await Promise.all(tasks.map(niceOf));
      expect(await niceOf(String(process.pid))).toBe(getPriority());
      expect(values).toContain(Math.min(getPriority() + 7, 19));
    },
  );

  test('answers each of several reads with its own sums', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    await byThread(reads, wholeOf(area, shared(SIZE)));
    const targets = Array.from({ length: 4 }, () => shared(SIZE));
    const all = targets.map((target, i) => begin(reads, wholeOf(area, target, 3 * i))?.done);
    expect(await Promise.all(all)).toEqual([true, true, true, true]);
    for (const [i, target] of targets.entries()) {
      const at = 3 * i * BLOCK_SIZE;
      expect(Buffer.compare(target, CONTENT.subarray(at, at + SIZE)), `read ${i}`).toBe(0);
    }
  });

  test('takes whole runs, as many blocks as a request has', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const target = shared(SIZE);
    const [run] = wholeOf(area, target);
    if (run === undefined) throw new Error('no run');
    await byThread(reads, [run]);
    const batch = reads.begin(
      Array.from({ length: 8 }, () => run),
      1,
      8,
    );
    expect(batch?.end).toBe(1 + Math.floor(128 / BLOCKS));
    expect(await batch?.done).toBe(true);
  });

  test('is left out for few blocks, for long runs into memory that it does not see, and with one processor', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    await byThread(reads, wholeOf(area, shared(SIZE)));
    const few = { area, block: 0, slot: 0, target: shared(SIZE).subarray(0, 15 * BLOCK_SIZE) };
    expect(begin(reads, [few])).toBeUndefined();
    expect(begin(reads, wholeOf(area, new Uint8Array(SIZE)))).toBeUndefined();
    expect(begin(reads, wholeOf(area, new Uint8Array(new SharedArrayBuffer(SIZE))))).toBeUndefined();
    const alone = readsOf(1);
    expect(begin(alone, wholeOf(area, shared(SIZE)))).toBeUndefined();
    expect(begin(alone, wholeOf(area, shared(SIZE)))).toBeUndefined();
    expect(area.lent).toBe(0);
  });

  test('is left out where a device lends nothing, and is not even started for it', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const target = shared(SIZE);
    const apart: CopySource = {
      ...area,
      copies: { ...area.copies, lend: () => undefined },
    };
    const runs = [
      ...scattered([area, area], target).slice(0, 20),
      { area: apart, block: 9, slot: 9, target: target.subarray(0, BLOCK_SIZE) },
    ];
    expect(begin(reads, runs)).toBeUndefined();
    expect(area.lent).toBe(0);
    expect(threads.size).toBe(0);
  });

  test('is left out when it is behind, sooner where the main thread would do as well', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const target = shared(SIZE);
    await byThread(reads, wholeOf(area, target));
    const waiting = vi.spyOn(FileThread.prototype, 'waiting', 'get');
    const takes = (runs: readonly CopyRun[], count: number) => {
      waiting.mockReturnValue(count);
      return begin(reads, runs)?.done ?? false;
    };
    expect(await takes(wholeOf(area, target), 11)).toBe(true);
    expect(await takes(wholeOf(area, target), 12)).toBe(false);
    const others = scattered([area, area], new Uint8Array(SIZE));
    expect(await takes(others, 1)).toBe(true);
    expect(await takes(others, 2)).toBe(false);
  });

  test('is asked for answers before it is called behind, as nothing else may turn the event loop', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const runs = scattered([area, area], new Uint8Array(SIZE));
    await byThread(reads, runs);
    const begun: Promise<boolean>[] = [];
    const deadline = performance.now() + 10_000;
    while (begun.length < 5 && performance.now() < deadline) {
      const batch = begin(reads, runs);
      if (batch !== undefined) begun.push(batch.done);
    }
    expect(await Promise.all(begun)).toEqual([true, true, true, true, true]);
  });

  test('that cannot read everything says so, and goes on', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    await byThread(reads, wholeOf(area, shared(SIZE)));
    expect(await begin(reads, wholeOf(area, shared(SIZE), 2 * BLOCKS + 1))?.done).toBe(false);
    expect(await begin(reads, wholeOf(area, shared(SIZE)))?.done).toBe(true);
    expect(area.lent).toBe(0);
  });

  test('that dies leaves nobody waiting, and nobody asks it again', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const runs = wholeOf(area, shared(SIZE));
    await vi.waitUntil(async () => {
      await Promise.all([begin(reads, runs)?.done, begin(reads, runs)?.done]);
      return threads.size === 2;
    }, 10_000);
    const all = Array.from({ length: 24 }, () => begin(reads, runs)?.done);
    await Promise.all([...threads].map((thread) => thread.terminate()));
    await Promise.all(all);
    threads.clear();
    expect(begin(reads, runs)).toBeUndefined();
    expect(threads.size).toBe(0);
    expect(area.lent).toBe(0);
  });

  test('gives memory back that stood in for another, whatever came of it', async () => {
    const [reads, area] = [readsOf(), await areaOf()];
    const target = new Uint8Array(SIZE);
    await byThread(reads, scattered([area, area], target));
    const take = vi.spyOn(SharedMemory.prototype, 'take');
    const give = vi.spyOn(SharedMemory.prototype, 'give');
    area.rotten = 0;
    await expect(begin(reads, scattered([area, area], target))?.done).rejects.toThrow(IntegrityError);
    area.rotten = undefined;
    expect(await begin(reads, scattered([area, area], target))?.done).toBe(true);
    expect(take).toHaveBeenCalledTimes(2);
    for (const [i, { value }] of take.mock.results.entries())
      expect(give.mock.calls[i]?.[0] === value).toBe(true);
  });

  test('is shared, ends with its last user, and is there again for the next', async () => {
    const area = await areaOf();
    const [first, second] = [readsOf(), readsOf()];
    await byThread(first, wholeOf(area, shared(SIZE)));
    await byThread(second, wholeOf(area, shared(SIZE)));
    const isRunning = () => [...threads].some(({ threadId }) => threadId > 0);
    await first.close();
    await first.close();
    expect(isRunning()).toBe(true);
    await second.close();
    expect(isRunning()).toBe(false);
    await byThread(readsOf(), wholeOf(area, shared(SIZE)));
    expect(isRunning()).toBe(true);
  });
});
