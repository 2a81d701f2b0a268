/**
 * A backup agent: full and incremental backups of a volume that is in use, restore, verify.
 *
 *     backup-agent.ts backup disk.img FOLDER          # everything the first time, then what changed
 *     backup-agent.ts restore FOLDER BACKUP new.img
 *     backup-agent.ts verify FOLDER
 *
 * FOLDER holds `chunks/`, each a file that is called by the SHA-256 of its bytes, so that equal ones are kept once, and
 * `backups/`, a list of chunks for each backup. Every list is complete, so any backup may be removed at any time. The
 * snapshot of the last backup stays: what changed since then is what the next one reads.
 */
import { createHash } from 'node:crypto';
import { access, mkdir, open, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectToOwner, FileDevice, type Snapshot, Volume, type VolumeAccess } from 'volsnap';

const CHUNK_SIZE = 64 * 1024;

interface Backup {
  readonly name: string;
  /** Id of the snapshot that it was read from. */
  readonly snapshot: string;
  readonly size: number;
  /** Hash of each chunk of the volume; `null`: zeros. */
  readonly chunks: readonly (string | null)[];
}

/** Backs up what a process serves, or else what is opened here. Interrupted by `signal`, it leaves the last backup the last. */
export async function backUp(image: string, folder: string, signal?: AbortSignal) {
  const served = await connectToOwner({ volume: image }, signal);
  await using volume = served ?? (await Volume.open(await FileDevice.open(image, { writable: true })));
  const last = (await backupsIn(folder)).at(-1);
  const label = `backup to ${resolve(folder)}`;
  // What an interrupted backup left.
  for (const snapshot of volume.snapshots)
    if (snapshot.label === label && snapshot.id !== last?.snapshot) await snapshot.delete();
  const before = volume.snapshots.find(({ id, state }) => id === last?.snapshot && state === 'ok');
  const snapshot = await volume.createSnapshot({ label });
  const saved = await save(volume, { snapshot, before, last }, folder, signal).catch(async (error) => {
    await snapshot.delete();
    throw error;
  });
  await before?.delete(); // It has served its purpose.
  return saved;
}

interface Moments {
  readonly snapshot: Snapshot;
  /** The snapshot of the last backup; without it everything is read. */
  readonly before: Snapshot | undefined;
  readonly last: Backup | undefined;
}

async function save(volume: VolumeAccess, moments: Moments, folder: string, signal?: AbortSignal) {
  const { snapshot, before: since, last } = moments;
  const known = since === undefined ? [] : (last?.chunks ?? []);
  const chunks = Array.from({ length: Math.ceil(snapshot.size / CHUNK_SIZE) }, (_, i) => known[i] ?? null);
  const figures = { readBytes: 0, newChunks: 0 };
  for (const part of ['chunks', 'backups']) await mkdir(join(folder, part), { recursive: true });
  // Without `since` this gives all that is not known to be zero.
  const changed = volume.changedBlocks({ since, until: snapshot, alignment: CHUNK_SIZE });
  for await (const { offset, length } of changed) {
    for (let at = offset; at < offset + length; at += CHUNK_SIZE) {
      signal?.throwIfAborted();
      const bytes = await snapshot.read(at, Math.min(CHUNK_SIZE, offset + length - at));
      const hash = hashOf(bytes);
      if (await keep(join(folder, 'chunks', hash), bytes)) figures.newChunks++;
      chunks[at / CHUNK_SIZE] = hash;
      figures.readBytes += bytes.byteLength;
    }
  }
  await syncFolder(join(folder, 'chunks'));
  // Last of all: a backup that is in the list is whole.
  const name = String(Number(last?.name ?? 0) + 1).padStart(6, '0');
  const backup: Backup = { name, snapshot: snapshot.id, size: snapshot.size, chunks };
  if (!(await keep(join(folder, 'backups', name), Buffer.from(JSON.stringify(backup)))))
    throw new Error(`another backup to ${folder} was made meanwhile`);
  await syncFolder(join(folder, 'backups'));
  return { name, kind: since === undefined ? 'full' : 'incremental', ...figures };
}

/** Writes a new file image. @throws Error if a chunk is lost or damaged */
export async function restore(folder: string, name: string, image: string): Promise<void> {
  const backup = (await backupsIn(folder)).find((each) => each.name === name);
  if (backup === undefined) throw new Error(`there is no backup ${name} in ${folder}`);
  await using file = await open(image, 'wx');
  await file.truncate(backup.size);
  for (const [index, hash] of backup.chunks.entries()) {
    if (hash === null) continue;
    const bytes = await chunkOf(folder, hash);
    await file.write(bytes, 0, bytes.byteLength, index * CHUNK_SIZE);
  }
  await file.sync();
}

/** Reads every chunk of every backup. @returns what is wrong, in words */
export async function verify(folder: string): Promise<string[]> {
  const problems = new Map<string, string>();
  for (const { name, chunks } of await backupsIn(folder))
    for (const hash of new Set(chunks))
      if (hash !== null && !problems.has(hash))
        await chunkOf(folder, hash).catch((error) => problems.set(hash, `backup ${name}: ${error.message}`));
  return [...problems.values()];
}

/** Oldest first. */
async function backupsIn(folder: string): Promise<Backup[]> {
  const names = await readdir(join(folder, 'backups')).catch(() => []);
  const finished = names.filter((name) => /^\d+$/.test(name)).sort();
  return Promise.all(
    finished.map(async (name) => JSON.parse(await readFile(join(folder, 'backups', name), 'utf8'))),
  );
}

async function chunkOf(folder: string, hash: string): Promise<Buffer> {
  const bytes = await readFile(join(folder, 'chunks', hash));
  if (hashOf(bytes) !== hash) throw new Error(`chunk ${hash} is damaged`);
  return bytes;
}

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Writes a file that is whole if it is there at all; its folder is still to be synced. @returns `false` if it was there */
async function keep(path: string, bytes: Uint8Array): Promise<boolean> {
  if (
    await access(path).then(
      () => true,
      () => false,
    )
  )
    return false;
  await writeFile(`${path}.new`, bytes, { flush: true });
  await rename(`${path}.new`, path);
  return true;
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path);
  await folder.sync();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, first = '', second = '', third = ''] = process.argv.slice(2);
  if (what === 'backup') console.log(await backUp(first, second));
  if (what === 'restore') await restore(first, second, third);
  const problems = what === 'verify' ? await verify(first) : [];
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
