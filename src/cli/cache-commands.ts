/** What the commands of `volsnap cache` do. */
import { open, rm, stat } from 'node:fs/promises';
import {
  AlreadyInitializedError,
  CachedDevice,
  CacheImage,
  DeviceExport,
  FileDevice,
  FixedCatalog,
  InvalidArgumentError,
  type NbdAddress,
  NbdServer,
} from '../index.js';
import type { CacheCreateOptions, CacheServeOptions } from './commands/cache.js';
import { asUsage, explained, Status } from './failure.js';
import { tlsOf, untilSignal } from './listening.js';
import { withProgress } from './progress.js';
import type { Session } from './session.js';
import { formatCount, formatShare, formatSize } from './size.js';
import { oneLine, pairLines } from './text.js';
import { openDevice } from './volumes.js';

export async function createImage(
  session: Session,
  path: string,
  options: CacheCreateOptions,
): Promise<undefined> {
  const isNew = await makeFile(path, options.replace ?? false);
  let isDone = false;
  try {
    await using device = await FileDevice.open(path, { writable: true });
    const type = options.fixed ? 'fixed' : 'dynamic';
    await withProgress(session, 'Writing', (onProgress) =>
      CacheImage.create(device, {
        size: options.size,
        type,
        signal: session.signal,
        onProgress,
        ...(options.uuid === undefined ? {} : { id: options.uuid }),
        replace: options.replace ?? false,
      }),
    );
    isDone = true;
    if (session.json) await session.output.json({ image: path, size: options.size, type });
    else
      await session.output.print(`${path} is an empty cache image of ${formatSize(options.size)}, ${type}.`);
  } finally {
    // What was made for nothing goes.
    if (!isDone && isNew) await rm(path, { force: true });
  }
}

/** @returns whether there was no file yet */
async function makeFile(path: string, replace: boolean): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    const file = await explained(`make ${path}`, () => open(path, 'wx', 0o600));
    await file.close();
    return true;
  }
  if (found.isFile() && found.size > 0 && !replace)
    throw new AlreadyInitializedError(`${path} exists; --replace replaces a cache image, nothing else`);
  if (found.isFile() && found.size > 0) {
    await using device = await FileDevice.open(path);
    if (!(await CacheImage.probe(device)))
      throw new InvalidArgumentError(
        `${path} exists and is no cache image: remove it, or choose another name`,
      );
  }
  return false;
}

/** Runs `body` on the image, open for reading. */
async function readImage<T>(path: string, body: (image: CacheImage) => Promise<T>): Promise<T> {
  const device = await FileDevice.open(path);
  try {
    await using image = await CacheImage.open(device, { memory: 512 * 1024 * 1024 });
    return await body(image);
  } finally {
    await device.close();
  }
}

export const showImage = (session: Session, path: string): Promise<undefined> =>
  readImage(path, async (image) => {
    const { id, modificationId, type, size, fileSize, recovery, figures } = image;
    const { extents, dataBytes, metadataBytes, freeBytes } = figures;
    const isClean = !recovery.wasUnclean;
    if (session.json) {
      const { droppedExtents } = recovery;
      const all = { image: path, id, modificationId, type, size, fileSize, isClean, droppedExtents };
      await session.output.json({ ...all, extents, dataBytes, metadataBytes, freeBytes });
      return undefined;
    }
    const lines: [string, string][] = [
      ['image', path],
      ['UUID', id],
      ['modification', modificationId],
      ['size', `${formatSize(size)}, ${type}; the file has ${formatSize(fileSize)}`],
      [
        'cached',
        `${formatSize(dataBytes)} (${formatShare(dataBytes, size)}) in ${formatCount(extents)} extents`,
      ],
      ['metadata', formatSize(metadataBytes)],
      ['free', formatSize(freeBytes)],
      [
        'closed',
        isClean ? 'cleanly' : `not cleanly; ${formatCount(recovery.droppedExtents)} extents are not certain`,
      ],
    ];
    await session.output.print(...pairLines(lines));
    return undefined;
  });

export async function checkImage({ json, output }: Session, path: string): Promise<number> {
  await using device = await FileDevice.open(path);
  const problems = await CacheImage.check(device);
  const damage = problems.filter(({ code }) => code === 'damaged');
  if (json) await output.json({ sound: damage.length === 0, problems });
  else await output.print(...problems.map(({ message }) => oneLine(message)));
  return damage.length === 0 ? Status.done : Status.failed;
}

export async function dumpImage({ json, output }: Session, path: string): Promise<undefined> {
  await using device = await FileDevice.open(path);
  const lines: string[] = [];
  for await (const line of CacheImage.dump(device)) {
    if (json) lines.push(line);
    else await output.print(line);
    if (output.closed) return;
  }
  if (json) await output.json({ lines });
}

export async function compactImage({ json, output, signal }: Session, path: string): Promise<undefined> {
  const device = await FileDevice.open(path, { writable: true });
  const before = device.size;
  let type: CacheImage['type'];
  {
    await using image = await CacheImage.open(device);
    ({ type } = image);
    await image.compact(signal);
  }
  // Closing an image writes to it, too.
  const fileSize = device.size;
  const saved = Math.max(0, before - fileSize);
  if (json) return void (await output.json({ image: path, fileSize, savedBytes: saved }));
  const size = formatSize(fileSize);
  if (saved > 0) await output.print(`${path} is shorter by ${formatSize(saved)}; it has ${size} now.`);
  else if (type === 'fixed')
    await output.print(`${path} is fixed, and keeps its ${size}; what is free in it was discarded.`);
  else await output.print(`${path} has ${size}, and is about as short as it can be.`);
}

export async function serveCached(
  session: Session,
  path: string,
  backingName: string,
  options: CacheServeOptions,
): Promise<undefined> {
  const tls = await tlsOf(options);
  const warn = (error: unknown) => session.notes.warn(error instanceof Error ? error.message : String(error));
  const device = await openCached(session, path, backingName, options);
  try {
    await using server = new NbdServer(new FixedCatalog([new DeviceExport('', device)]), {
      ...(tls === undefined ? {} : { tls }),
      onError: warn,
    });
    const address: NbdAddress =
      options.listen === undefined
        ? { path: options.socket ?? `${path}.sock` }
        : { ...options.listen, insecure: options.insecure ?? false };
    const bound = await server.listen(address).catch((error: unknown) => {
      throw asUsage(error);
    });
    const uri = uriOf(bound, tls !== undefined);
    const ready = session.json ? JSON.stringify({ uri, pid: process.pid, size: device.size }) : uri;
    await untilSignal(session, () => session.output.print(ready));
  } finally {
    await device.close();
  }
}

async function openCached(
  session: Session,
  path: string,
  backingName: string,
  options: CacheServeOptions,
): Promise<CachedDevice> {
  const place = await FileDevice.open(path, { writable: true });
  const image = await CacheImage.open(place, { memory: options.memory }).catch(async (error: unknown) => {
    await place.close();
    throw error;
  });
  if (image.recovery.wasUnclean)
    session.notes.warn(
      `${path} was not closed cleanly; ${formatCount(image.recovery.droppedExtents)} extents that are not certain were dropped, the others kept`,
    );
  try {
    const backing = await openDevice(session, backingName, options.readOnly !== true);
    try {
      const device = await CachedDevice.open(image, backing, {
        policy: options.policy,
        readAhead: options.readAhead,
        fillSize: options.fill,
        ...(options.modificationUuid === undefined ? {} : { modificationId: options.modificationUuid }),
        onCacheFailure: (error) =>
          session.notes.warn(
            `${path} failed, and is not used any more until this is started again: ${error.message}`,
          ),
      });
      if (device.wasInvalidated)
        session.notes.warn(`${path} was of another backing, or of another state of it, and has been emptied`);
      return device;
    } catch (error) {
      await backing.close();
      throw error;
    }
  } catch (error) {
    await image.close().catch(() => undefined); // The first error is the one to tell.
    throw error;
  }
}

function uriOf(address: NbdAddress, isSecure: boolean): string {
  const scheme = isSecure ? 'nbds' : 'nbd';
  if ('path' in address)
    return `${scheme}+unix:///?socket=${encodeURIComponent(address.path).replaceAll('%2F', '/')}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${scheme}://${host}:${address.port}/`;
}
