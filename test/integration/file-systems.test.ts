/**
 * Real file systems under snapshots: the files of a snapshot outlive heavy changes and a process killed in the middle of
 * making them, and the file system of the snapshot is sound.
 *
 * The changes are made by the file system's own tools on a copy, and written back through the engine by a child process.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import type { Snapshot } from '../../src/snapshot/snapshot.ts';
import { DirectoryStore } from '../../src/store/directory-store.ts';
import { InVolumeStore } from '../../src/store/in-volume-store.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { bundled } from '../bundled.ts';
import { Libvshadow } from '../interop/support/libvshadow.ts';
import { requireTool, run, runWell } from '../interop/support/writer-tools.ts';

const CHILD = bundled(new URL('./file-systems-child.ts', import.meta.url));
const SEED = process.env.VOLSNAP_SEED ?? 'files';
const ROUNDS = Number(process.env.VOLSNAP_KILL_ROUNDS ?? 3);
const MEBIBYTE = 1024 * 1024;
const SIZE = 64 * MEBIBYTE;
const FILES = 250;

/** SHA-256 of each file, by name. */
type Hashes = Map<string, string>;
const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** What the tests do with one kind of file system. Files lie in the root. */
interface FileSystem {
  readonly tools: readonly string[];
  /** Makes an image of `SIZE` bytes that holds the files of a folder. */
  format(image: string, files: string): Promise<void>;
  /** Removes files, overwrites others and adds some; `files` has what is to be there. */
  change(image: string, files: string, removed: readonly string[], written: readonly string[]): Promise<void>;
  /** Output of the checker if it finds anything wrong. */
  check(image: string): Promise<string | undefined>;
  read(image: string, names: readonly string[], folder: string): Promise<Hashes>;
}

const ext4: FileSystem = {
  tools: ['mkfs.ext4', 'debugfs', 'e2fsck'],
  async format(image, files) {
    await writeFile(image, '');
    await truncate(image, SIZE);
    await runWell('mkfs.ext4', '-q', '-F', '-d', files, image);
  },
  async change(image, files, removed, written) {
    const commands = [
      ...removed.map((name) => `rm ${name}`),
      ...written.flatMap((name) => [`rm ${name}`, `write ${join(files, name)} ${name}`]),
    ];
    const script = `${image}.commands`;
    await writeFile(script, `${commands.join('\n')}\n`);
    await runWell('debugfs', '-w', '-f', script, image);
  },
  async check(image) {
    const { status, output } = await run('e2fsck', ['-fn', image]);
    return status === 0 ? undefined : output;
  },
  async read(image, names, folder) {
    await mkdir(folder, { recursive: true });
    await runWell('debugfs', '-R', `rdump / ${folder}`, image);
    const hashes: Hashes = new Map();
    for (const name of names) hashes.set(name, hashOf(await readFile(join(folder, name))));
    return hashes;
  },
};

const ntfs: FileSystem = {
  tools: ['mkntfs', 'ntfscp', 'ntfscat', 'ntfsfix'],
  async format(image, files) {
    await writeFile(image, '');
    await truncate(image, SIZE);
    await runWell('mkntfs', '-F', '-q', '-Q', '-s', '512', image);
    await copyIn(image, files, await readdir(files));
  },
  async change(image, files, _removed, written) {
    await copyIn(image, files, written);
  },
  async check(image) {
    const { status, output } = await run('ntfsfix', ['-n', image]);
    return status === 0 ? undefined : output;
  },
  async read(image, names, folder) {
    await mkdir(folder, { recursive: true });
    await runWell('sh', '-ec', EACH_OUT, 'sh', image, folder, ...names);
    const hashes: Hashes = new Map();
    for (const name of names) hashes.set(name, hashOf(await readFile(join(folder, name))));
    return hashes;
  },
};

// One shell for all files: starting hundreds of programs from here takes several times as long.
const EACH_IN = 'image=$1; from=$2; shift 2; for name; do ntfscp -q "$image" "$from/$name" "$name"; done';
const EACH_OUT = 'image=$1; to=$2; shift 2; for name; do ntfscat -q "$image" "$name" > "$to/$name"; done';

const copyIn = (image: string, files: string, names: readonly string[]): Promise<string> =>
  runWell('sh', '-ec', EACH_IN, 'sh', image, files, ...names);

/** Writes a file of random length and bytes; returns its hash. */
async function makeFile(path: string, random: SeededRandom): Promise<string> {
  const length = random.chance(0.1) ? random.between(100_000, 600_000) : random.below(40_000);
  const bytes = random.fill(new Uint8Array(length));
  await writeFile(path, bytes);
  return hashOf(bytes);
}

async function writeOut(source: Volume | Snapshot, path: string): Promise<void> {
  await writeFile(path, await source.read(0, source.size));
}

/** Runs the child; kills it so long after it began, unless it is done before. Was it killed? */
async function writeBack(image: string, copy: string, killAfterMs: number | undefined): Promise<boolean> {
  const child = spawn(process.execPath, [...CHILD, image, copy], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const exit = once(child, 'exit');
  await Promise.race([once(child.stdout, 'data'), exit]);
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  await exit;
  clearTimeout(timer);
  if (child.signalCode === 'SIGKILL') return true;
  expect(child.exitCode, complaint).toBe(0);
  return false;
}

const openVolume = async (image: string): Promise<Volume> =>
  Volume.open(await FileDevice.open(image, { writable: true }));

describe.each([
  { name: 'ext4', fileSystem: ext4, layout: 'directory' },
  { name: 'NTFS', fileSystem: ntfs, layout: 'directory' },
  { name: 'NTFS', fileSystem: ntfs, layout: 'in-volume' },
] as const)('$name ($layout)', ({ name, fileSystem, layout }) => {
  const canRun = requireTool(...fileSystem.tools, ...(layout === 'in-volume' ? ['pyvshadow'] : []));

  test.skipIf(!canRun)(
    'snapshots keep every file through changes and a kill',
    { timeout: 120_000 + ROUNDS * 60_000 },
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'volsnap-files-'));
      onTestFinished(() => rm(folder, { recursive: true, force: true }));
      const random = new SeededRandom(`${SEED} ${name} ${layout}`);
      const image = join(folder, 'disk.img');
      const copy = join(folder, 'copy');
      const files = join(folder, 'files');
      await mkdir(files);
      let hashes: Hashes = new Map();
      for (let i = 0; i < FILES; i++)
        hashes.set(`file-${i}`, await makeFile(join(files, `file-${i}`), random));
      await fileSystem.format(image, files);
      const device = await FileDevice.open(image, { writable: true });
      const store =
        layout === 'directory'
          ? new DirectoryStore(`${image}.volsnap`)
          : new InVolumeStore({ reserve: 160 * MEBIBYTE });
      await Volume.initialize(device, { store });
      await device.close();
      const moments = new Map<string, Hashes>();
      const seen = new Map<string, Hashes>();
      let kills = 0;

      for (let round = 0; round < ROUNDS; round++) {
        const what = `round ${round} of seed ${random.seed}`;
        const before = await openVolume(image);
        const snapshot = await before.createSnapshot({ label: what });
        moments.set(snapshot.id, new Map(hashes));
        await writeOut(before, copy);
        await before.close();

        const names = random.shuffle([...hashes.keys()]);
        const removed = name === 'ext4' ? names.slice(0, 40) : [];
        const overwritten = names.slice(40, 140);
        const added = Array.from({ length: 30 }, (_, i) => `new-${round}-${i}`);
        hashes = new Map(hashes);
        for (const gone of removed) hashes.delete(gone);
        for (const file of [...overwritten, ...added])
          hashes.set(file, await makeFile(join(files, file), random));
        await fileSystem.change(copy, files, removed, [...overwritten, ...added]);
        expect(await fileSystem.check(copy), `the changed copy, ${what}`).toBeUndefined();

        if (await writeBack(image, copy, random.between(20, 500))) kills++;
        await expectSnapshots(moments, what);
        // Then all of it, so that the next round begins with a sound file system.
        await writeBack(image, copy, undefined);
        const after = await openVolume(image);
        await writeOut(after, join(folder, 'now'));
        await after.close();
        await expectFiles(join(folder, 'now'), hashes, `the volume, ${what}`);
      }
      await expectSnapshots(moments, 'at the end');
      console.info(`${name}, ${layout}: ${ROUNDS} rounds, ${kills} killed in the middle`);
      expect(kills).toBeGreaterThan(0);

      async function expectSnapshots(wanted: ReadonlyMap<string, Hashes>, what: string): Promise<void> {
        const volume = await openVolume(image);
        expect(volume.snapshots.map(({ id }) => id)).toEqual([...wanted.keys()]);
        const blocks: string[][] = [];
        for (const snapshot of volume.snapshots) {
          const path = join(folder, 'snapshot');
          await writeOut(snapshot, path);
          await expectFiles(
            path,
            wanted.get(snapshot.id) ?? new Map(),
            `snapshot ${snapshot.order}, ${what}`,
          );
          if (layout === 'in-volume') blocks.push(blockHashes(await readFile(path)));
        }
        await volume.close();
        if (layout === 'in-volume') await expectLibvshadow(blocks, what);
      }

      /** An image is sound and holds these files. What has the bytes of one that was looked at holds what that did. */
      async function expectFiles(path: string, wanted: Hashes, what: string): Promise<void> {
        const hash = hashOf(await readFile(path));
        let found = seen.get(hash);
        if (found === undefined) {
          const read = join(folder, 'read');
          await rm(read, { recursive: true, force: true });
          found = await fileSystem.read(path, [...wanted.keys()], read);
          // The last, as ntfsfix is allowed to open it for writing.
          const checked = join(folder, 'checked');
          await copyFile(path, checked);
          expect(await fileSystem.check(checked), what).toBeUndefined();
          seen.set(hash, found);
        }
        expect(found, `files of ${what}`).toEqual(wanted);
      }

      async function expectLibvshadow(wanted: readonly string[][], what: string): Promise<void> {
        await using libvshadow = new Libvshadow();
        const answer = await libvshadow.read(image);
        if ('refused' in answer) expect.fail(`libvshadow refuses the image: ${answer.refused}`);
        expect(answer.snapshots).toHaveLength(wanted.length);
        for (const [i, hashesOfBlocks] of wanted.entries()) {
          const theirs = answer.snapshots[i]?.blocks ?? [];
          const wrong = hashesOfBlocks.flatMap((hash, block) => (hash === theirs[block] ? [] : [block]));
          expect(wrong, `blocks of snapshot ${i} in libvshadow, ${what}`).toEqual([]);
        }
      }
    },
  );
});

function blockHashes(bytes: Uint8Array): string[] {
  const list: string[] = [];
  for (let at = 0; at < bytes.byteLength; at += BLOCK_SIZE)
    list.push(hashOf(bytes.subarray(at, at + BLOCK_SIZE)));
  return list;
}
