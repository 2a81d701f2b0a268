/** Load from fio, which speaks NBD by itself (`ioengine=nbd`). */
import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';

export interface NbdLoad {
  readonly name: string;
  readonly kind: 'write' | 'randwrite' | 'read' | 'randread';
  /** Bytes of one request. */
  readonly request: number;
  /** Requests in flight. */
  readonly depth: number;
  /** How often the range is gone through, 1 unless given. A part of it below 1; then no request is made twice. */
  readonly share?: number;
}

/** Is there a fio that speaks NBD? */
export const hasFio = (): boolean => spawnSync('fio', ['--enghelp=nbd'], { stdio: 'ignore' }).status === 0;

/** Of an export, in bytes. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

/**
 * Puts a load on a range of an export; writes end with a flush, which counts.
 * @returns MiB a second
 */
export async function fio(uri: string, { offset, length }: Range, load: NbdLoad): Promise<number> {
  const bytes = Math.floor((length * (load.share ?? 1)) / load.request) * load.request;
  const { stdout } = await promisify(execFile)(
    'fio',
    [
      '--name=bench',
      '--ioengine=nbd',
      `--uri=${uri}`,
      `--rw=${load.kind}`,
      `--bs=${load.request}`,
      `--iodepth=${load.depth}`,
      `--offset=${offset}`,
      `--size=${length}`,
      `--io_size=${bytes}`,
      '--end_fsync=1',
      '--output-format=json',
    ],
    { maxBuffer: 2 ** 24, timeout: 600_000 },
  );
  // A line of the engine's own comes before the JSON.
  const [job] = (JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport).jobs;
  const done = load.kind.endsWith('write') ? job?.write : job?.read;
  if (job === undefined || done === undefined || job.error !== 0 || done.io_bytes !== bytes)
    throw new Error(`fio, ${load.name}: error ${job?.error}, ${done?.io_bytes} bytes of ${bytes}`);
  return bytes / 2 ** 20 / (Math.max(done.runtime, 1) / 1000);
}

interface FioReport {
  readonly jobs: readonly { readonly error: number; readonly read: FioSide; readonly write: FioSide }[];
}

/** `runtime` in milliseconds; of writes it covers the flush at the end. */
interface FioSide {
  readonly io_bytes: number;
  readonly runtime: number;
}
