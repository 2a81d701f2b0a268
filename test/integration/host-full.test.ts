/** A file system without a free byte, and the way out of it. Needs root for a tmpfs; skipped, and said so, elsewhere. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { open, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { NoSpaceError } from '../../src/errors.js';
import { DirectoryStore, FileDevice, Volume, type WriteMode } from '../../src/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { describeUnless } from '../interop/support/describe-unless.js';

const MEBIBYTE = 1024 * 1024;

/** Takes every byte that is left. @returns gives them back */
async function fillUp(place: string): Promise<() => Promise<void>> {
  const path = join(place, 'ballast');
  const file = await open(path, 'w');
  try {
    for (const piece of [MEBIBYTE, 4096])
      for (;;) {
        try {
          if ((await file.write(new Uint8Array(piece))).bytesWritten < piece) break;
        } catch {
          break;
        }
      }
  } finally {
    await file.close();
  }
  expect((await statfs(place)).bavail).toBe(0);
  return () => rm(path);
}

const cannotMount = process.getuid?.() === 0 ? undefined : 'mounting a tmpfs takes root';

describeUnless(cannotMount, 'a host that is full', () => {
  test.each<WriteMode>(['ordered', 'writeback'])('%s', async (writeMode) => {
    const folder = mkdtempSync(join(tmpdir(), 'volsnap-full-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const place = mkdtempSync(join(tmpdir(), 'volsnap-full-store-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', place]);
    onTestFinished(() => {
      execFileSync('umount', [place]);
      rmSync(place, { recursive: true });
    });
    const image = join(folder, 'disk.img');
    await writeFile(image, '');
    await truncate(image, 16 * MEBIBYTE);
    const store = new DirectoryStore(join(place, 'store'));
    const device = await FileDevice.open(image, { writable: true });
    await device.write(0, new Uint8Array(16 * MEBIBYTE).fill(1));
    await Volume.initialize(device, { store });
    const growth = { initial: 2 * MEBIBYTE, maximum: 2 * MEBIBYTE };
    const volume = await Volume.open(device, { store, writeMode, growth });
    onTestFinished(() => volume.close());
    const older = await volume.createSnapshot();
    await volume.write(0, new Uint8Array(8 * BLOCK_SIZE).fill(2));
    await volume.flush();
    const newer = await volume.createSnapshot();
    const giveBack = await fillUp(place);
    // Nothing of this takes space.
    await volume.setSpacePolicy('fail-writes');
    await newer.hold();
    await volume.setMaximumSize(64 * MEBIBYTE);
    await expect(volume.createSnapshot()).rejects.toThrow(NoSpaceError);
    const writing = async () => {
      await volume.write(MEBIBYTE, new Uint8Array(MEBIBYTE).fill(3));
      await volume.flush();
    };
    await expect(writing()).rejects.toThrow(NoSpaceError);
    expect(volume.snapshots).toEqual([older, newer]);
    expect([...(await newer.read(MEBIBYTE, 2)), ...(await older.read(0, 2))]).toEqual([1, 1, 1, 1]);
    await older.delete();
    expect(volume.snapshots).toEqual([newer]);
    await giveBack();
    await writing();
    expect([...(await newer.read(MEBIBYTE, 2)), ...(await volume.read(MEBIBYTE, 2))]).toEqual([1, 1, 3, 3]);
    await newer.release();
    const again = await fillUp(place);
    await volume.setSpacePolicy('delete-oldest');
    await volume.write(4 * MEBIBYTE, new Uint8Array(8 * MEBIBYTE).fill(4));
    await volume.flush();
    expect(newer.problem).toBe('space');
    await again();
  });
});
