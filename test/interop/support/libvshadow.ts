/** What libvshadow makes of images: one Python process answers for many. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';

const PYTHON = '/usr/bin/python3';

/** Reads a path a line, answers with JSON a line. Blocks are read whole: libvshadow errs off multiples of 512. */
const PROGRAM = `
import hashlib, json, sys
import pyvshadow

def answer(path):
    volume = pyvshadow.volume()
    volume.open(path)
    result = []
    for index in range(volume.number_of_stores):
        store = volume.get_store(index)
        blocks = []
        while True:
            data = store.read(16384)
            if not data:
                break
            blocks.append(hashlib.sha256(data).hexdigest())
        result.append({
            'storeId': store.identifier,
            'snapshotId': store.copy_identifier,
            'setId': store.copy_set_identifier,
            'ticks': str(store.get_creation_time_as_integer()),
            'size': store.volume_size,
            'entryCount': store.number_of_blocks,
            'blocks': blocks,
        })
    volume.close()
    return {'snapshots': result}

for line in sys.stdin:
    try:
        print(json.dumps(answer(line.rstrip('\\n'))), flush=True)
    except (IOError, OSError, MemoryError) as error:
        print(json.dumps({'refused': str(error)}), flush=True)
`;

export interface LibvshadowSnapshot {
  readonly storeId: string;
  readonly snapshotId: string;
  readonly setId: string;
  readonly ticks: string;
  readonly size: number;
  readonly entryCount: number;
  /** SHA-256 of each block of 16 KiB. */
  readonly blocks: readonly string[];
}
export type LibvshadowAnswer =
  | { readonly snapshots: readonly LibvshadowSnapshot[] }
  | { readonly refused: string };

/** Why libvshadow cannot be asked here; `undefined` when it can. */
export function whyNoLibvshadow(): string | undefined {
  const { status, stderr, error } = spawnSync(PYTHON, ['-c', 'import pyvshadow'], { encoding: 'utf8' });
  if (status === 0) return undefined;
  return `pyvshadow is not there (Debian package python3-libvshadow): ${error?.message ?? stderr.trim().split('\n').at(-1)}`;
}

export class Libvshadow implements AsyncDisposable {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor() {
    this.#process = spawn(PYTHON, ['-c', PROGRAM]);
    this.#process.stderr.pipe(process.stderr);
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** What it reads in the image at `path`. One question at a time. */
  async read(path: string): Promise<LibvshadowAnswer> {
    this.#process.stdin.write(`${path}\n`);
    const line = await this.#lines.next();
    if (line.done === true) throw new Error(`libvshadow ended while it read ${path}`);
    return JSON.parse(line.value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.stdin.end();
    this.#process.kill();
  }
}
