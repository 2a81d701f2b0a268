/**
 * From the write buffer to the volume: what is ready goes there in order of offset, neighbours in one vectored write.
 *
 * Changes that are ready together never overlap, so their order is free. While one sweep over the volume is under way
 * what becomes ready gathers for the next: the busier the device, the longer the runs.
 *
 * Shared state: the lists and the count change between awaits only.
 */
import { type BlockDevice, writeAll } from '../device/block-device.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { BufferedWrite } from './buffered-write.js';

/** Runs that are written at the same time. */
const RUNS_AT_ONCE = 8;
/** Bytes of a run: so that a long one does not keep the memory of all of it to its end. */
const RUN_BYTES_MAX: ByteLength = 4 * 1024 * 1024;
/** Buffers of a run: what one system call takes. */
const RUN_PIECES_MAX = 1024;

/** Told once for each change. `error` is that of its run; then each of them may be tried alone. */
export type OnWritten = (write: BufferedWrite, error: unknown) => void;

export class WriteOuts {
  readonly #device: BlockDevice;
  readonly #onWritten: OnWritten;
  readonly #ready: BufferedWrite[] = [];
  /** Runs of the present sweep that have not begun, the next one last. */
  #runs: BufferedWrite[][] = [];
  #writing = 0;
  #isScheduled = false;
  /** Runs written so far. */
  count = 0;

  constructor(device: BlockDevice, onWritten: OnWritten) {
    this.#device = device;
    this.#onWritten = onWritten;
  }

  add(write: BufferedWrite): void {
    this.#ready.push(write);
    if (this.#isScheduled || this.#writing === RUNS_AT_ONCE) return;
    this.#isScheduled = true;
    // All those whose copies were committed together come in this turn.
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#startRuns();
    });
  }

  #startRuns(): void {
    while (this.#writing < RUNS_AT_ONCE) {
      if (this.#runs.length === 0) this.#runs = runsOf(this.#ready.splice(0)).reverse();
      const run = this.#runs.pop();
      if (run === undefined) return;
      for (const write of run) write.state = 'writing';
      const offset = run[0]?.offset ?? 0;
      const sources = run.flatMap(({ bytes }) => bytes ?? []);
      let isWritten: boolean;
      try {
        isWritten = this.#device.writeNow?.(offset, sources) === true;
      } catch (error) {
        this.#written(run, error);
        continue;
      }
      if (isWritten) this.#written(run, undefined);
      else void this.#write(run, offset, sources);
    }
  }

  /** Never rejects. */
  async #write(run: readonly BufferedWrite[], offset: ByteOffset, sources: readonly Uint8Array[]) {
    this.#writing++;
    let failure: unknown;
    try {
      await writeAll(this.#device, offset, sources);
    } catch (error) {
      failure = error;
    }
    this.#writing--;
    this.#written(run, failure);
    this.#startRuns();
  }

  #written(run: readonly BufferedWrite[], error: unknown): void {
    if (error === undefined) {
      this.count++;
      // First writes since a snapshot, nearly all: of each block there is one.
      this.#device.settling?.(run.reduce((sum, { length }) => sum + length, 0));
    }
    for (const write of run) this.#onWritten(write, error);
  }
}

/** Sorted by offset, neighbours together; one that failed goes alone, so that it cannot make others fail again. */
function runsOf(writes: BufferedWrite[]): BufferedWrite[][] {
  writes.sort((a, b) => a.offset - b.offset);
  const runs: BufferedWrite[][] = [];
  let run: BufferedWrite[] = [];
  let end = -1;
  let bytes = 0;
  for (const write of writes) {
    const isFull = bytes + write.length > RUN_BYTES_MAX || run.length === RUN_PIECES_MAX;
    if (write.offset !== end || isFull || write.wasTriedAgain) {
      run = [];
      runs.push(run);
      bytes = 0;
    }
    run.push(write);
    end = write.wasTriedAgain ? -1 : write.end;
    bytes += write.length;
  }
  return runs;
}
