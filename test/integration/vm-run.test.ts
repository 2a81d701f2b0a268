/**
 * As a VM would use it: an ext4 mounted on the served volume, a load running on it, snapshots taken meanwhile, the server killed.
 * Afterwards the file system repairs itself by its journal, nothing that fsync acknowledged is missing, and every
 * snapshot is a sound file system.
 */
import { type ChildProcess, spawn } from 'node:child_process';
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
/** The load keeps this many of its newest files. */
const KEPT = 60;

/** The load, and what it was told to be durable. */
class Load {
  readonly #child: ChildProcess;
  readonly durable: { name: string; hash: string }[] = [];

  constructor(folder: string, seed: string) {
    const child = spawn(process.execPath, [...CHILD, folder, seed], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child = child;
    onTestFinished(() => void child.kill('SIGKILL'));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [name = '', hash = ''] = line.split(' ');
      this.durable.push({ name, hash });
    });
  }

  async reached(count: number): Promise<void> {
    await expect.poll(() => this.durable.length, { timeout: 60_000 }).toBeGreaterThanOrEqual(count);
  }

  /** Resolves when it has noticed that its disk is gone. */
  async ended(): Promise<void> {
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
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
  const names = (await runWell('ls', folder)).split('\n').filter((name) => name.startsWith('file-'));
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
      const frozen: string[] = [];
      const running: { id: string; durable: number }[] = [];
      for (let round = 1; round <= 3; round++) {
        await load.reached(round * 60);
        const before = load.durable.length;
        running.push({ id: bench.snapshot(volume), durable: before });
        await runWell('fsfreeze', '-f', folder);
        try {
          frozen.push(bench.snapshot(volume));
        } finally {
          await runWell('fsfreeze', '-u', folder);
        }
      }
      await load.reached(220);
      await served.end('SIGKILL');
      // The client would wait for ever for a server that has lost its memory.
      await disk.kill();
      await load.ended();
      await run('umount', ['-l', folder]);

      const again = await Served.start(bench, volume, '--write-mode', mode);
      const copy = async (name: string) => {
        await runWell('nbdcopy', again.uri(name), bench.path('copy.img'));
        return bench.path('copy.img');
      };
      const live = await copy('live');
      await repairByJournal(live);
      const hashes = await hashesIn(live, bench.path('live.files'));
      for (const { name, hash } of load.durable.slice(-KEPT + 1))
        expect([name, hashes.get(name)]).toEqual([name, hash]);
      for (const id of frozen) await runWell('e2fsck', '-fn', await copy(`snapshot/${id}`));
      for (const [i, { id, durable }] of running.entries()) {
        const image = await copy(`snapshot/${id}`);
        await repairByJournal(image);
        const then = await hashesIn(image, bench.path(`snapshot-${i}.files`));
        for (const { name, hash } of load.durable.slice(Math.max(0, durable - KEPT + 10), durable))
          if (then.has(name)) expect([name, then.get(name)]).toEqual([name, hash]);
        expect([...then.keys()].length).toBeGreaterThan(KEPT / 2);
      }
      await again.end();
      bench.ok(['check', volume]);
      await copyFile(bench.path(volume), bench.path('closed.img'));
      await repairByJournal(bench.path('closed.img'));
    }, 180_000);
  }
});
