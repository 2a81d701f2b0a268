/**
 * As a VM would use it: an ext4 mounted on the served volume, a load running on it, snapshots taken meanwhile, the server killed.
 * Afterwards the file system repairs itself by its journal, every snapshot is a sound file system, and nothing that fsync
 * acknowledged is missing, neither on the volume nor in the snapshots that came after.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bundled } from '../bundled.ts';
import { canMount, fuse, mount } from '../interop/support/mounts.ts';
import { Served } from '../interop/support/served.ts';
import { requireTool, run, runWell } from '../interop/support/writer-tools.ts';
import { Bench, MEBIBYTE } from './cli-support.ts';

const CHILD = bundled(new URL('./vm-run-child.ts', import.meta.url));
const SIZE = 96 * MEBIBYTE;
/** The newest files, of which the load has deleted none before it makes the next one. */
const KEPT = 59;

interface DurableFile {
  readonly name: string;
  readonly hash: string;
}

/** The load, and what it was told to be durable. */
class Load {
  /** Nothing more will be told. */
  readonly ended: Promise<unknown>;
  /** In the order in which they were made: the number of each is its place. */
  readonly durable: DurableFile[] = [];

  constructor(folder: string, seed: string) {
    const child = spawn(process.execPath, [...CHILD, folder, seed], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const lines = createInterface({ input: child.stdout }).on('line', (line) => {
      const [name = '', hash = ''] = line.split(' ');
      this.durable.push({ name, hash });
    });
    // It ends when it has noticed that its disk is gone.
    this.ended = once(lines, 'close');
  }

  async reached(count: number): Promise<void> {
    await expect.poll(() => this.durable.length, { timeout: 60_000 }).toBeGreaterThanOrEqual(count);
  }
}

/** Replays the journal, as the next mount would, then looks at everything. */
async function repairByJournal(image: string): Promise<void> {
  const replay = await run('e2fsck', ['-p', image]);
  expect(replay, replay.output).toMatchObject({ status: expect.toSatisfy((status: number) => status <= 1) });
  await runWell('e2fsck', '-fn', image);
}

async function hashesIn(image: string, folder: string): Promise<Map<string, string>> {
  await mkdir(folder);
  await runWell('debugfs', '-R', `rdump / ${folder}`, image);
  const names = (await runWell('ls', folder)).split('\n').filter((name) => /^file-\d+$/.test(name));
  const hashes = new Map<string, string>();
  for (const name of names)
    hashes.set(
      name,
      createHash('sha256')
        .update(await readFile(`${folder}/${name}`))
        .digest('hex'),
    );
  return hashes;
}

/**
 * The newest file of a snapshot tells its moment: all before it had been made durable, and only those deleted that had so many
 * newer ones. So nothing has to be known of when, while the load went on, the snapshot was taken; only that it was not before
 * the first `acknowledged` files were durable.
 */
function expectNothingMissing(
  found: ReadonlyMap<string, string>,
  durable: readonly DurableFile[],
  acknowledged: number,
): void {
  const newest = durable.findLastIndex(({ name }) => found.has(name));
  expect(newest).toBeGreaterThanOrEqual(acknowledged - 1);
  const expected = durable.slice(Math.max(0, newest + 1 - KEPT), newest + 1);
  expect(expected.map(({ name }) => ({ name, hash: found.get(name) }))).toEqual(expected);
}

const tools = ['nbdfuse', 'mkfs.ext4', 'e2fsck', 'debugfs', 'fsfreeze'];

describe.skipIf(!canMount() || !requireTool(...tools))('a VM on a served volume', () => {
  for (const mode of ['writeback', 'ordered']) {
    test(`loses nothing that was made durable when the server is killed (${mode})`, async () => {
      const bench = new Bench();
      const volume = await bench.volume('disk.img', SIZE);
      await runWell('mkfs.ext4', '-q', '-F', bench.path(volume));
      const served = await Served.start(bench, volume, '--write-mode', mode, '--changed', 'keep');
      const disk = await fuse(bench, 'disk', served.uri());
      const folder = await mount(bench, 'guest', disk.path);
      const load = new Load(folder, `vm-${mode}`);
      const snapshots: { id: string; acknowledged: number; isFrozen: boolean }[] = [];
      const takeSnapshot = (isFrozen: boolean) => {
        const acknowledged = load.durable.length;
        snapshots.push({ id: bench.snapshot(volume), acknowledged, isFrozen });
      };
      for (let round = 1; round <= 3; round++) {
        await load.reached(round * 60);
        takeSnapshot(false);
        await runWell('fsfreeze', '-f', folder);
        try {
          takeSnapshot(true);
        } finally {
          await runWell('fsfreeze', '-u', folder);
        }
      }
      await load.reached(220);
      await served.end('SIGKILL');
      // The client would wait for ever for a server that has lost its memory.
      await disk.kill();
      await load.ended;
      await run('umount', ['-l', folder]);

      const again = await Served.start(bench, volume, '--write-mode', mode);
      const copy = async (name: string) => {
        await runWell('nbdcopy', again.uri(name), bench.path('copy.img'));
        return bench.path('copy.img');
      };
      const live = await copy('live');
      await repairByJournal(live);
      const told = load.durable.length;
      expectNothingMissing(await hashesIn(live, bench.path('live.files')), load.durable, told);
      for (const [i, { id, acknowledged, isFrozen }] of snapshots.entries()) {
        const image = await copy(`snapshot/${id}`);
        if (isFrozen) await runWell('e2fsck', '-fn', image);
        else await repairByJournal(image);
        const found = await hashesIn(image, bench.path(`snapshot-${i}.files`));
        expectNothingMissing(found, load.durable, acknowledged);
      }
      await again.end();
      bench.ok(['check', volume]);
      await copyFile(bench.path(volume), bench.path('closed.img'));
      await repairByJournal(bench.path('closed.img'));
    }, 180_000);
  }
});
