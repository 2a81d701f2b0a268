import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { NoSpaceError, ReadOnlyError, SnapshotDeletedError, UnsupportedError } from '../../../src/errors.ts';
import { encodeItem, FREE_ITEM, itemPosition } from '../../../src/format/control-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume, type VolumeOptions } from '../../../src/volume/volume.ts';
import type { ForeignSnapshot } from '../../../src/windows/foreign-snapshot.ts';
import { ForeignStore } from '../../../src/windows/foreign-store.ts';
import { buildWindowsImage, copy, type ImagePlan, move } from '../../interop/support/windows-image.ts';
import { HookedDevice, Hooks } from '../engine/hooks.ts';
import { T } from './fixtures.ts';

/** Shadow copies 1 (oldest) and 2; block 5 is unused in both, block 6 in the newer only. The newer has three free blocks. */
const PLAN: ImagePlan = {
  size: 60 * BLOCK_SIZE,
  metadataFrom: 30,
  snapshots: [
    { number: 1, createdAt: T, tables: [[copy(1, 20)]], unused: [5], free: [2] },
    { number: 2, createdAt: T + 1n, tables: [[copy(2, 21), move(3, 9)]], unused: [5, 6], free: [1, 2] },
  ],
};
const ONES = new Uint8Array(BLOCK_SIZE).fill(1);

async function opened(plan: ImagePlan = PLAN, options: VolumeOptions = { shadowCopies: 'keep' }) {
  const { bytes, at, stores } = buildWindowsImage(plan);
  const device = new MemoryDevice(bytes);
  const before = await contentOf(bytes);
  const volume = await Volume.open(device, options);
  return { volume, bytes, at, stores, before };
}

/** What the shadow copies of an image read as, oldest first, up to where the stores begin: a hash of each block. */
async function contentOf(bytes: Uint8Array): Promise<string[][]> {
  const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes.slice()));
  const hashes = async (snapshot: ForeignSnapshot) => {
    const content = await snapshot.read(0, 20 * BLOCK_SIZE);
    return Array.from({ length: 20 }, (_, block) =>
      createHash('sha256')
        .update(content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE))
        .digest('hex'),
    );
  };
  return Promise.all(snapshots.map(hashes));
}

const entriesOf = async (bytes: Uint8Array): Promise<number[]> => {
  const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes.slice()));
  return snapshots.map(({ entryCount }) => entryCount);
};

test('a volume of Windows is not opened for writing unless it is said how', async () => {
  await expect(opened(PLAN, {})).rejects.toThrow(UnsupportedError);
  await expect(opened(PLAN, { shadowCopies: 'lose' as 'keep' })).rejects.toThrow('keep or drop');
  const { volume } = await opened(PLAN, { readOnly: true });
  await expect(volume.write(0, ONES)).rejects.toThrow(ReadOnlyError);
});

test('a block that is overwritten stays as it was in every shadow copy, and is copied once', async () => {
  const { volume, bytes, before } = await opened();
  await Promise.all([
    volume.write(7 * BLOCK_SIZE + 100, ONES.subarray(0, 10)),
    volume.write(7 * BLOCK_SIZE + 300, ONES.subarray(0, 10)),
  ]);
  await volume.write(7 * BLOCK_SIZE, ONES);
  expect(await entriesOf(bytes)).toEqual([1, 3]);
  expect(await contentOf(bytes)).toEqual(before);
  expect(bytes[7 * BLOCK_SIZE]).toBe(1);
  expect(volume.figures.copies).toMatchObject({ copiedBlocks: 1 });
  await volume.close();
});

test('what the newest has, or nobody needs, is not copied', async () => {
  const { volume, bytes, before } = await opened();
  await volume.write(2 * BLOCK_SIZE, ONES);
  await volume.write(5 * BLOCK_SIZE, ONES);
  expect(await entriesOf(bytes)).toEqual([1, 2]);
  // Older ones have content of Windows here that it left undefined.
  const after = await contentOf(bytes);
  for (const content of [...before, ...after]) content[5] = '';
  expect(after).toEqual(before);
  // Unused in the newest, but not in the older one.
  await volume.write(6 * BLOCK_SIZE, ONES);
  expect(await entriesOf(bytes)).toEqual([1, 3]);
  expect((await contentOf(bytes))[0]?.[6]).toBe(before[0]?.[6]);
});

test('the target of a move is kept for the block that moved there, and for itself', async () => {
  const { volume, bytes, before } = await opened();
  await volume.write(9 * BLOCK_SIZE, ONES);
  expect(await entriesOf(bytes)).toEqual([1, 4]);
  expect(await contentOf(bytes)).toEqual(before);
  await volume.write(3 * BLOCK_SIZE, ONES);
  expect(await entriesOf(bytes)).toEqual([1, 4]);
  expect(await contentOf(bytes)).toEqual(before);
});

test('without room a write is refused, and nothing is changed', async () => {
  const { volume, bytes, before } = await opened();
  await volume.write(10 * BLOCK_SIZE, new Uint8Array(2 * BLOCK_SIZE).fill(1));
  const then = bytes.slice();
  await expect(volume.write(12 * BLOCK_SIZE, new Uint8Array(2 * BLOCK_SIZE).fill(1))).rejects.toThrow(
    NoSpaceError,
  );
  expect(Buffer.compare(bytes, then)).toBe(0);
  // For one there is room, and for what is covered there is no need of any.
  await volume.write(12 * BLOCK_SIZE, ONES);
  await volume.write(10 * BLOCK_SIZE, ONES);
  await expect(volume.writeZeroes(13 * BLOCK_SIZE, 1)).rejects.toThrow(
    /no room for 1 more copy.*nothing is lost/,
  );
  expect(await contentOf(bytes)).toEqual(before);
  expect(volume.snapshots).toHaveLength(2);
});

test('or all shadow copies go, oldest first, if they are to be dropped', async () => {
  const { volume, bytes, stores } = await opened(PLAN, { shadowCopies: 'drop' });
  const [, newest] = volume.snapshots;
  const gone: string[] = [];
  volume.on('deleted', ({ id, reason }) => gone.push(`${id.slice(-2)} ${reason}`));
  await volume.write(10 * BLOCK_SIZE, new Uint8Array(4 * BLOCK_SIZE).fill(1));
  expect(gone).toEqual(['01 space', '02 space']);
  expect(bytes[10 * BLOCK_SIZE]).toBe(1);
  expect(volume.snapshots).toEqual([]);
  await expect(newest?.read(0, 1)).rejects.toThrow(SnapshotDeletedError);
  // Without shadow copies their stores are blocks like others, and so is what led to them.
  await volume.write((stores.at(-1)?.[0] ?? 0) * BLOCK_SIZE, ONES);
  await volume.write((stores[0]?.[0] ?? 0) * BLOCK_SIZE, ONES);
  await volume.write(0, ONES);
});

test('a store that belongs to none of the shadow copies is never written', async () => {
  const { bytes, at, stores } = buildWindowsImage(PLAN);
  encodeItem(bytes, (at.get('control') ?? 0) * BLOCK_SIZE + itemPosition(0), FREE_ITEM);
  const volume = await Volume.open(new MemoryDevice(bytes), { shadowCopies: 'drop' });
  const [other, own] = stores.map(([start]) => start * BLOCK_SIZE);
  await expect(volume.write(other ?? 0, ONES)).rejects.toThrow(/would overwrite the stores/);
  expect(volume.snapshots).toHaveLength(1);
  await volume.write(own ?? 0, ONES);
  expect(volume.snapshots).toEqual([]);
});

test('the stores are not written from above', async () => {
  const { volume, bytes, stores, before } = await opened();
  const then = bytes.slice();
  const refused = [
    0x1e00,
    20 * BLOCK_SIZE,
    ...stores.flatMap(([start, end]) => [start, end - 1].map((b) => b * BLOCK_SIZE)),
  ];
  for (const offset of refused) {
    await expect(volume.write(offset, ONES.subarray(0, 1)), `${offset}`).rejects.toThrow(
      /would overwrite the stores/,
    );
  }
  await expect(volume.discard((stores[0]?.[0] ?? 0) * BLOCK_SIZE - 1, 2)).rejects.toThrow(ReadOnlyError);
  expect(Buffer.compare(bytes, then)).toBe(0);
  // Around the start block the first block may be written.
  await volume.write(0x1e00 - 512, ONES.subarray(0, 512));
  await volume.write(0x2000, ONES.subarray(0, 512));
  expect(await contentOf(bytes)).toEqual(before);
});

test('the oldest can be deleted, no other', async () => {
  const { volume, bytes, before, stores } = await opened();
  const [oldest, newest] = volume.snapshots;
  await expect(newest?.delete()).rejects.toThrow(/not the oldest/);
  await oldest?.delete();
  expect(volume.snapshots).toEqual([newest]);
  expect(oldest?.state).toBe('deleted');
  expect(await contentOf(bytes)).toEqual(before.slice(1));
  // Its store is not one any more; that of the other still is.
  await volume.write((stores[0]?.[0] ?? 0) * BLOCK_SIZE, ONES);
  await expect(volume.write((stores[1]?.[0] ?? 0) * BLOCK_SIZE, ONES)).rejects.toThrow(ReadOnlyError);
  await volume.deleteOldest(5);
  expect(volume.snapshots).toEqual([]);
  expect(await contentOf(bytes)).toEqual([]);
  await volume.close();
});

test('a deletion that a crash cut in two is one', async () => {
  const { bytes, at } = buildWindowsImage(PLAN);
  const before = await contentOf(bytes);
  encodeItem(bytes, (at.get('control') ?? 0) * BLOCK_SIZE + itemPosition(0), FREE_ITEM);
  const volume = await Volume.open(new MemoryDevice(bytes), { shadowCopies: 'keep' });
  expect(volume.recovery.warnings).toEqual([expect.stringContaining('belongs to no snapshot')]);
  await volume.write(7 * BLOCK_SIZE, ONES);
  expect(await contentOf(bytes)).toEqual(before.slice(1));
});

test('what else a store of volsnap can is refused in words', async () => {
  const { volume } = await opened();
  const [snapshot] = volume.snapshots;
  await expect(volume.createSnapshot()).rejects.toThrow(/shadow copies that Windows made/);
  await expect(volume.setMaximumSize(0)).rejects.toThrow(UnsupportedError);
  expect(() => snapshot && volume.revert(snapshot)).toThrow('cannot be put back to shadow copy');
});

test('damaged shadow copies keep the volume from being written, or go', async () => {
  const { bytes, at } = buildWindowsImage(PLAN);
  bytes.fill(0, (at.get('table 1') ?? 0) * BLOCK_SIZE, ((at.get('table 1') ?? 0) + 1) * BLOCK_SIZE);
  const open = (options: VolumeOptions) =>
    Volume.open(new MemoryDevice(bytes), { shadowCopies: 'keep', ...options });
  await expect(open({})).rejects.toThrow(/Open the volume read-only/);
  const volume = await open({ onDamaged: 'drop' });
  expect(volume.recovery.droppedSnapshots).toEqual([{ id: expect.stringMatching(/01$/), reason: 'damaged' }]);
  expect(volume.snapshots).toHaveLength(1);
});

test('moves that cannot be told apart, and runs that overlap, keep the volume from being written', async () => {
  const [first = { number: 1, createdAt: T, tables: [] }, second = first] = PLAN.snapshots;
  const moved = { ...second, tables: [[move(3, 9), copy(3, 21)]] };
  await expect(opened({ ...PLAN, snapshots: [first, moved] })).rejects.toThrow(/cannot be told apart/);
  const { free: _, ...senseless } = first;
  await expect(opened({ ...PLAN, snapshots: [senseless, second] })).rejects.toThrow(
    /belongs to two files|within the volume/,
  );
});

test('opening makes durable what it relies on; copy, entry and block follow with a flush between', async () => {
  const hooks = new Hooks();
  const { bytes } = buildWindowsImage(PLAN);
  const volume = await Volume.open(new HookedDevice(new MemoryDevice(bytes), hooks), {
    shadowCopies: 'keep',
  });
  const done = () =>
    hooks.log
      .filter(({ phase, kind }) => phase === 'end' && kind !== 'read' && kind !== 'allocation')
      .map(({ kind }) => kind);
  expect(done()).toEqual(['flush']);
  await Promise.all([7, 8, 10].map((block) => volume.write(block * BLOCK_SIZE, ONES)));
  // All three copies, in two runs, share their two flushes.
  expect(done()).toEqual(['flush', 'write', 'write', 'flush', 'write', 'flush', 'write', 'write', 'write']);
  await volume.close();
});

test('a reader whose block is overwritten before it is read gets the copy', async () => {
  const hooks = new Hooks();
  const { bytes } = buildWindowsImage(PLAN);
  const device = new HookedDevice(new MemoryDevice(bytes), hooks);
  const volume = await Volume.open(device, { shadowCopies: 'keep' });
  const before = bytes.slice(7 * BLOCK_SIZE, 8 * BLOCK_SIZE);
  let goOn: () => void = () => undefined;
  let isFirst = true;
  hooks.before = ({ kind }) => {
    if (kind !== 'read' || !isFirst) return undefined;
    isFirst = false;
    return new Promise((resolve) => {
      goOn = () => resolve(undefined);
    });
  };
  const reading = volume.snapshots[0]?.read(7 * BLOCK_SIZE, BLOCK_SIZE);
  await volume.write(7 * BLOCK_SIZE, ONES);
  goOn();
  expect(Buffer.compare((await reading) ?? ONES, before)).toBe(0);
});

test('a failure of the table ends copying, not what needs none, and loses nothing', async () => {
  const hooks = new Hooks();
  const { bytes } = buildWindowsImage(PLAN);
  const before = await contentOf(bytes);
  const volume = await Volume.open(new HookedDevice(new MemoryDevice(bytes), hooks), {
    shadowCopies: 'keep',
  });
  let flushes = 0;
  hooks.before = ({ kind }) => {
    if (kind === 'flush' && ++flushes === 2) throw new Error('broken');
    return undefined;
  };
  await expect(volume.write(7 * BLOCK_SIZE, ONES)).rejects.toThrow(/until the volume is opened again/);
  await expect(volume.write(8 * BLOCK_SIZE, ONES)).rejects.toThrow(/until the volume is opened again/);
  await volume.write(2 * BLOCK_SIZE, ONES);
  await volume.close();
  expect(await contentOf(bytes)).toEqual(before);
});
