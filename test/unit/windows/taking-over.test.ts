/** A store of volsnap takes shadow copies of Windows over: they stay as they were, and new snapshots can be taken. */
import { expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { systemEnvironment } from '../../../src/environment.ts';
import {
  AlreadyInitializedError,
  DeviceError,
  HeldError,
  NoSpaceError,
  NotInitializedError,
  ReadOnlyError,
  SnapshotDeletedError,
  UnsupportedError,
} from '../../../src/errors.ts';
import { encodeItem, FREE_ITEM, ITEM_PAIRS, itemPosition } from '../../../src/format/control-block.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume, type VolumeOptions } from '../../../src/volume/volume.ts';
import { ForeignStore } from '../../../src/windows/foreign-store.ts';
import {
  buildWindowsImage,
  copy,
  type ImagePlan,
  move,
  overlay,
  snapshotIdOf,
} from '../../interop/support/windows-image.ts';
import { T } from './fixtures.ts';

/** The stores lie from block 30 on; block 5 is unused in both shadow copies, block 6 in the newer only. */
const PLAN: ImagePlan = {
  size: 60 * BLOCK_SIZE - 512,
  metadataFrom: 30,
  snapshots: [
    {
      number: 1,
      createdAt: T,
      tables: [[copy(1, 20), move(4, 10), overlay(8, 22, 0xf0)]],
      unused: [5],
      free: [2],
    },
    { number: 2, createdAt: T + 1n, tables: [[copy(2, 21), move(3, 9)]], unused: [5, 6], free: [1, 2] },
  ],
};
const SIZE = PLAN.size;
const ONES = new Uint8Array(BLOCK_SIZE).fill(1);
/** Blocks of the volume that hold no store. */
const SUBJECTS = 20;
const GROWTH = { initial: 9 * BLOCK_SIZE, maximum: 9 * BLOCK_SIZE };
const RESERVE = 200 * BLOCK_SIZE;
/** Where the start block of Windows leads to its catalog. */
const CATALOG_OFFSET = 0x1e00 + 48;

interface Taken {
  readonly content: MemoryContent;
  readonly reserve?: number;
  readonly shadowCopies?: 'keep' | 'drop';
}

/** What the shadow copies of an image read as, oldest first, by the rules of Windows. */
async function contentOf(bytes: Uint8Array): Promise<Uint8Array[]> {
  const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes.slice()));
  return Promise.all(snapshots.map((snapshot) => snapshot.read(0, SUBJECTS * BLOCK_SIZE)));
}

async function takeOver({ content, reserve = RESERVE, shadowCopies = 'keep' }: Taken): Promise<void> {
  const store = new InVolumeStore({ reserve });
  await Volume.initialize(new MemoryDevice(content), { store, shadowCopies });
}

const open = (content: MemoryContent, options: VolumeOptions = {}): Promise<Volume> =>
  Volume.open(new MemoryDevice(content), { growth: GROWTH, ...options });

async function taken(options: Partial<Taken> = {}) {
  const { bytes, stores } = buildWindowsImage(PLAN);
  const before = await contentOf(bytes);
  const content = new MemoryContent(bytes);
  const original = bytes.slice();
  await takeOver({ ...options, content });
  return { content, before, original, stores, volume: await open(content) };
}

/** As users of the volume see it: it leads to no catalog. */
function withoutCatalog(original: Uint8Array): Uint8Array {
  const bytes = original.slice();
  bytes.fill(0, CATALOG_OFFSET, CATALOG_OFFSET + 8);
  return bytes;
}

const subjectsOf = (snapshot: Snapshot | undefined): Promise<Uint8Array> | undefined =>
  snapshot?.read(0, SUBJECTS * BLOCK_SIZE);

/** The blocks in which they differ, without those that the shadow copy leaves undefined. */
function differing(actual: Uint8Array | undefined, expected: Uint8Array | undefined, age?: number): number[] {
  const blocks: number[] = [];
  for (let block = 0; block < SUBJECTS; block++) {
    const [from, to] = [block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE];
    if (age !== undefined && PLAN.snapshots[age]?.unused?.includes(block)) continue;
    if (Buffer.compare(actual?.subarray(from, to) ?? ONES, expected?.subarray(from, to) ?? ONES) !== 0)
      blocks.push(block);
  }
  return blocks;
}

async function expectCopies(volume: Volume, before: readonly Uint8Array[]): Promise<void> {
  for (const [age, expected] of before.entries())
    expect(differing(await subjectsOf(volume.snapshots[age]), expected, age), `shadow copy ${age}`).toEqual(
      [],
    );
}

/** The volume with the store of volsnap told apart by nothing: read by the rules of Windows alone. */
async function byWindowsRules(content: MemoryContent): Promise<Uint8Array[]> {
  const bytes = content.bytes.slice();
  bytes.fill(0, 0x1e00 + 96, 0x2000);
  return contentOf(bytes);
}

test('both shadow copies and a new snapshot stay as they were, here and by the rules of Windows', async () => {
  const { content, before, original, volume } = await taken();
  expect(volume.snapshots.map(({ label, held, order }) => [label, held, order])).toEqual([
    [undefined, false, 1],
    [undefined, false, 2],
    ['as volsnap found it', true, 3],
  ]);
  expect(Buffer.compare(await volume.read(0, SIZE), withoutCatalog(original))).toBe(0);
  const snapshot = await volume.createSnapshot({ label: 'first' });
  for (const block of [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 25]) await volume.write(block * BLOCK_SIZE, ONES);
  await volume.copyRange(12 * BLOCK_SIZE, 13 * BLOCK_SIZE, 2 * BLOCK_SIZE);
  await volume.write(12 * BLOCK_SIZE, ONES);
  await expectCopies(volume, before);
  for (const [own, expected] of [
    [volume.snapshots[2], original],
    [snapshot, withoutCatalog(original)],
  ] as const)
    expect(Buffer.compare((await own?.read(0, SIZE)) ?? ONES, expected)).toBe(0);
  await volume.close();
  expect((await checkVolume(new MemoryDevice(content), { scrub: true })).map(({ code }) => code)).toEqual([]);
  const found = await byWindowsRules(content);
  expect(found).toHaveLength(4);
  for (const [age, bytes] of before.entries()) expect(differing(found[age], bytes, age)).toEqual([]);
  expect(differing(found[2], original)).toEqual([]);
  expect(differing(found[3], withoutCatalog(original))).toEqual([]);
  await using again = await open(content);
  await expectCopies(again, before);
});

test('a snapshot of volsnap goes like any other; the base stays as long as there are shadow copies, which go oldest first', async () => {
  const { content, before, volume } = await taken({ shadowCopies: 'drop' });
  const first = await volume.createSnapshot({ label: 'first' });
  await volume.write(7 * BLOCK_SIZE, ONES);
  await volume.createSnapshot({ label: 'second' });
  await volume.write(8 * BLOCK_SIZE, ONES);
  await first.delete({ wait: true });
  await expectCopies(volume, before);
  const [oldest, newer, base] = volume.snapshots;
  await expect(base?.delete()).rejects.toThrow(UnsupportedError);
  await expect(newer?.delete()).rejects.toThrow('not the oldest');
  expect(() => newer && volume.revert(newer)).toThrow(UnsupportedError);
  const gone: string[] = [];
  volume.on('deleted', ({ id, reason }) => gone.push(`${id} ${reason}`));
  await oldest?.delete();
  await expect(oldest?.read(0, 512)).rejects.toThrow(SnapshotDeletedError);
  expect(differing(await subjectsOf(newer), before[1], 1)).toEqual([]);
  await volume.close();

  const again = await open(content);
  expect(again.snapshots.map(({ label }) => label)).toEqual([undefined, 'as volsnap found it', 'second']);
  expect(differing(await subjectsOf(again.snapshots[0]), before[1], 1)).toEqual([]);
  await again.deleteOldest(2);
  expect(again.snapshots.map(({ label }) => label)).toEqual(['second']);
  expect(gone).toEqual([`${snapshotIdOf(1)} requested`]);
  // Its blocks are the volume's now.
  await again.write(30 * BLOCK_SIZE, new Uint8Array(28 * BLOCK_SIZE));
  await again.close();
  expect(await checkVolume(new MemoryDevice(content), { scrub: true })).toEqual([]);
});

test('without room a write fails, if shadow copies are to be kept', async () => {
  const { before, original, volume } = await taken({ reserve: 76 * BLOCK_SIZE });
  const filler = systemEnvironment.random.fill(new Uint8Array(SIZE));
  let error: unknown;
  for (let round = 0; round < 6 && error === undefined; round++) {
    await volume.createSnapshot().catch((reason: unknown) => {
      error = reason;
    });
    error ??= await volume.write(0, filler.subarray(0, SUBJECTS * BLOCK_SIZE)).then(
      () => undefined,
      (reason: unknown) => reason,
    );
  }
  expect(error).toBeInstanceOf(NoSpaceError);
  await expect(volume.deleteOldest(99)).rejects.toThrow(HeldError);
  await expectCopies(volume, before);
  expect(Buffer.compare((await volume.snapshots[2]?.read(0, SIZE)) ?? ONES, original)).toBe(0);
  await volume.close();
});

test('or all of them go, before what they are read through, if they are to be dropped', async () => {
  const { volume } = await taken({ reserve: 76 * BLOCK_SIZE, shadowCopies: 'drop' });
  const gone: string[] = [];
  volume.on('deleted', ({ id, reason }) => gone.push(`${id.slice(-2)} ${reason}`));
  const base = volume.snapshots[2]?.id.slice(-2);
  const filler = systemEnvironment.random.fill(new Uint8Array(SIZE));
  for (let round = 0; round < 6; round++) {
    await volume.createSnapshot();
    await volume.write(0, filler.subarray(0, SUBJECTS * BLOCK_SIZE));
    filler.reverse();
  }
  expect(gone.slice(0, 3)).toEqual(['01 space', '02 space', `${base} space`]);
  await volume.close();
});

test('the stores of the shadow copies are not written from above, or all of those go', async () => {
  const kept = await taken();
  const at = (kept.stores[0]?.[0] ?? 0) * BLOCK_SIZE;
  for (const change of [
    kept.volume.write(at - 512, ONES.subarray(0, 1024)),
    kept.volume.writeZeroes(at, 512),
    kept.volume.discard(0, SIZE),
    kept.volume.copyRange(0, at, 512),
  ])
    await expect(change).rejects.toThrow(ReadOnlyError);
  // Nor is a snapshot where the volume could not be put back to it.
  const [, , writable] = kept.volume.snapshots;
  await writable?.setWritable(true);
  await expect(writable?.write(at, ONES)).rejects.toThrow(ReadOnlyError);
  await expect(writable?.writeZeroes(at, 512)).rejects.toThrow(ReadOnlyError);
  // The start block is the store's own, and what users see there is an ordinary sector.
  await kept.volume.write(0x1e00, ONES.subarray(0, 512));
  await expectCopies(kept.volume, kept.before);
  await kept.volume.close();

  const dropped = await taken({ shadowCopies: 'drop' });
  const gone: string[] = [];
  dropped.volume.on('deleted', ({ id, reason }) => gone.push(`${id.slice(-2)} ${reason}`));
  await dropped.volume.write(at, ONES);
  expect(gone).toEqual(['01 store-overwritten', '02 store-overwritten']);
  expect(dropped.volume.snapshots.map(({ label }) => label)).toEqual(['as volsnap found it']);
  const [base] = dropped.volume.snapshots;
  expect(Buffer.compare((await base?.read(0, SIZE)) ?? ONES, dropped.original)).toBe(0);
  await dropped.volume.close();
});

test('what is written to the base itself is not seen in shadow copies, and it is younger than they whatever the clock says', async () => {
  const { bytes } = buildWindowsImage(PLAN);
  const before = await contentOf(bytes);
  const content = new MemoryContent(bytes);
  const clock = { ...systemEnvironment.clock, now: () => 1000 };
  const environment = { ...systemEnvironment, clock };
  const store = new InVolumeStore({ reserve: RESERVE });
  await Volume.initialize(new MemoryDevice(content), { store, shadowCopies: 'keep', environment });
  await using volume = await open(content, { environment });
  const [, newer, base] = volume.snapshots;
  expect(Number(base?.createdAt)).toBeGreaterThanOrEqual(Number(newer?.createdAt));
  await base?.setWritable(true);
  await base?.write(7 * BLOCK_SIZE, ONES);
  await base?.flush();
  await expectCopies(volume, before);
  expect(await volume.createSnapshot()).toMatchObject({ order: 4 });
});

test('what changed since a shadow copy is everything that differs', async () => {
  const { volume } = await taken();
  await volume.write(7 * BLOCK_SIZE, ONES);
  const [oldest, newer, base] = volume.snapshots;
  const sides = [oldest, newer, base, undefined];
  for (const [index, since] of sides.entries()) {
    if (since === undefined) continue;
    for (const until of sides.slice(index)) {
      const changed = new Set<number>();
      for await (const { offset, length } of volume.changedBlocks({ since, until }))
        for (let at = offset; at < offset + length; at += BLOCK_SIZE)
          changed.add(Math.floor(at / BLOCK_SIZE));
      const after = await (until ?? volume).read(0, SUBJECTS * BLOCK_SIZE);
      const missed = differing(await subjectsOf(since), after).filter((block) => !changed.has(block));
      expect(missed, `${since.order} to ${until?.order}`).toEqual([]);
      expect(changed.size).toBeLessThan(12);
    }
  }
  await expect(volume.changedBlocks({ since: base as Snapshot, until: newer }).next()).rejects.toThrow(
    'newer',
  );
  await expect(volume.changedBlocks({ since: newer as Snapshot, until: oldest }).next()).rejects.toThrow(
    'newer',
  );
  await volume.close();
});

const inside = (runs: readonly { offset: number; length: number }[]) => new InVolumeStore({ runs });

test('a reserve in the midst of the volume is emptied first: what shadow copies need of it is copied', async () => {
  const plan = {
    ...PLAN,
    size: 160 * BLOCK_SIZE,
    snapshots: PLAN.snapshots.map((snapshot) => ({
      ...snapshot,
      // All but block 70 of the reserve.
      unused: [5, 6, ...Array.from({ length: 90 }, (_, index) => 60 + index).filter((block) => block !== 70)],
    })),
  };
  const { bytes, stores } = buildWindowsImage(plan);
  const [expected] = await contentOf(bytes);
  const was = bytes.slice(70 * BLOCK_SIZE, 71 * BLOCK_SIZE);
  const content = new MemoryContent(bytes);
  const taking = (runs: readonly { offset: number; length: number }[]) =>
    Volume.initialize(new MemoryDevice(content), { store: inside(runs), shadowCopies: 'keep' });
  const [first = 0] = stores[1] ?? [];
  const original = bytes.slice();
  await expect(taking([{ offset: first * BLOCK_SIZE, length: 90 * BLOCK_SIZE }])).rejects.toThrow(
    'belongs to',
  );
  // More than there is room for.
  await expect(taking([{ offset: 60 * BLOCK_SIZE, length: 100 * BLOCK_SIZE }])).rejects.toThrow(NoSpaceError);
  expect(Buffer.compare(await contentOf(bytes).then(([copy]) => copy ?? ONES), expected ?? ONES)).toBe(0);
  bytes.set(original);
  await taking([{ offset: 60 * BLOCK_SIZE, length: 90 * BLOCK_SIZE }]);
  const volume = await open(content);
  await volume.createSnapshot();
  await volume.write(7 * BLOCK_SIZE, ONES);
  expect(differing(await subjectsOf(volume.snapshots[0]), expected, 0)).toEqual([]);
  for (const age of [0, 1])
    expect(
      Buffer.compare((await volume.snapshots[age]?.read(70 * BLOCK_SIZE, BLOCK_SIZE)) ?? ONES, was),
    ).toBe(0);
  await expect(volume.write(70 * BLOCK_SIZE, ONES)).rejects.toThrow(ReadOnlyError);
  await volume.close();
  expect(await checkVolume(new MemoryDevice(content), { scrub: true })).toEqual([]);
});

test('the volume does not end before what the shadow copies need', async () => {
  const content = new MemoryContent(buildWindowsImage(PLAN).bytes);
  content.resize(400 * BLOCK_SIZE);
  const taking = (protectedSize: number) =>
    Volume.initialize(new MemoryDevice(content), {
      store: new InVolumeStore({ protectedSize }),
      shadowCopies: 'keep',
    });
  const before = content.bytes.slice();
  for (const size of [SIZE - 512, 40 * BLOCK_SIZE, BLOCK_SIZE])
    await expect(taking(size)).rejects.toThrow(`give at least ${SIZE}`);
  expect(Buffer.compare(content.bytes, before)).toBe(0);
  await taking(SIZE);
});

test('numbers and times that leave no room for younger snapshots are refused', async () => {
  const snapshots = PLAN.snapshots.map((plan) => ({ ...plan, createdAt: 2n ** 64n - 1n }));
  const content = new MemoryContent(buildWindowsImage({ ...PLAN, snapshots }).bytes);
  const store = new InVolumeStore({ reserve: RESERVE });
  await expect(Volume.initialize(new MemoryDevice(content), { store, shadowCopies: 'keep' })).rejects.toThrow(
    UnsupportedError,
  );
});

test('it is asked for, in a store inside the volume, and once', async () => {
  const { bytes } = buildWindowsImage(PLAN);
  const device = () => new MemoryDevice(bytes.slice());
  const store = new InVolumeStore({ reserve: RESERVE });
  await expect(Volume.initialize(device(), { store })).rejects.toThrow('--shadow-copies');
  await expect(Volume.initialize(device(), { store, shadowCopies: 'lose' as 'keep' })).rejects.toThrow(
    'keep or drop',
  );
  await expect(
    Volume.initialize(device(), { store: new DirectoryStore('/nowhere'), shadowCopies: 'keep' }),
  ).rejects.toThrow('inside their volume only');
  const { content, volume } = await taken();
  await volume.close();
  await expect(takeOver({ content })).rejects.toThrow(AlreadyInitializedError);
  // Nothing to take over.
  const plain = new MemoryContent(new Uint8Array(SIZE));
  await takeOver({ content: plain });
  await using empty = await open(plain);
  expect(empty.snapshots).toEqual([]);
});

test('a copy of the volume leads to no shadow copies; one of the base to those that it can show', async () => {
  const { before, content, original, volume } = await taken();
  const listed = async (source: { read(offset: number, length: number): Promise<Uint8Array> }) =>
    (await ForeignStore.open(new MemoryDevice(await source.read(0, SIZE)))).snapshots;
  const base = volume.snapshots[2] as Snapshot;
  await volume.write(7 * BLOCK_SIZE, ONES);
  const newer = await volume.createSnapshot();
  expect(await listed(volume)).toEqual([]);
  expect(await listed(newer)).toEqual([]);
  for (const [age, copy] of (await listed(base)).entries())
    expect(differing(await copy.read(0, SUBJECTS * BLOCK_SIZE), before[age], age)).toEqual([]);
  // Such a copy is a volume like any other.
  const copied = new MemoryContent(await volume.read(0, SIZE));
  await expect(open(copied)).rejects.toThrow(NotInitializedError);
  await Volume.initialize(new MemoryDevice(copied), { store: new InVolumeStore({ reserve: RESERVE }) });

  // Nor does the volume when it is put back to the base.
  const revert = volume.revert(base);
  await revert.begun;
  const inParts = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at += 4) await volume.read(at, inParts.subarray(at, at + 4));
  expect(Buffer.compare(inParts, withoutCatalog(original))).toBe(0);
  await revert.completed;
  expect(Buffer.compare(await volume.read(0, SIZE), withoutCatalog(original))).toBe(0);
  expect(Buffer.compare(await base.read(0, SIZE), original)).toBe(0);
  // Unless somebody has written another sector there, which is a sector like any other.
  await base.setWritable(true);
  await base.write(0x1e00, ONES.subarray(0, 512));
  await volume.write(0x1e00, original.subarray(0x1e00, 0x2000));
  expect(await volume.read(CATALOG_OFFSET, 8)).toEqual(original.slice(CATALOG_OFFSET, CATALOG_OFFSET + 8));
  await volume.revert(base).completed;
  expect(await volume.read(CATALOG_OFFSET, 8)).toEqual(ONES.slice(0, 8));
  await volume.close();
  expect(await checkVolume(new MemoryDevice(content), { scrub: true })).toEqual([]);
});

test('a volume whose shadow copies Windows has deleted needs no word about them', async () => {
  const { bytes } = buildWindowsImage(PLAN);
  const content = new MemoryContent(withoutCatalog(bytes));
  await Volume.initialize(new MemoryDevice(content), { store: new InVolumeStore({ reserve: RESERVE }) });
  await using volume = await open(content);
  expect(volume.snapshots).toEqual([]);
});

test('it is told which shadow copies are dropped at once, because the reserve takes what they need', async () => {
  const { bytes } = buildWindowsImage({ ...PLAN, size: 160 * BLOCK_SIZE });
  const content = new MemoryContent(bytes);
  const dropped: unknown[] = [];
  await Volume.initialize(new MemoryDevice(content), {
    store: inside([{ offset: 60 * BLOCK_SIZE, length: 90 * BLOCK_SIZE }]),
    shadowCopies: 'drop',
    onShadowCopyDropped: (copy) => dropped.push(copy),
  });
  const createdAt = new Date('2013-12-03T06:35:09.736Z');
  expect(dropped).toEqual([
    { id: snapshotIdOf(1), createdAt },
    { id: snapshotIdOf(2), createdAt },
  ]);
  await using volume = await open(content);
  expect(volume.snapshots).toEqual([]);
  expect(await volume.read(CATALOG_OFFSET, 8)).toEqual(new Uint8Array(8));
});

/** Fails the write or flush that is given, and if it says so all later ones. */
class Failing extends MemoryDevice {
  calls = 0;

  constructor(
    content: MemoryContent,
    readonly first: number,
    readonly isFinal: boolean,
  ) {
    super(content);
  }

  #count(): void {
    const call = this.calls++;
    if (call === this.first || (this.isFinal && call > this.first)) throw new DeviceError('broken');
  }

  override async write(offset: number, source: Uint8Array): Promise<void> {
    this.#count();
    await super.write(offset, source);
  }

  override async flush(): Promise<void> {
    this.#count();
    await super.flush();
  }
}

test('an attempt that fails anywhere leaves the volume as it was, or the whole store', async () => {
  const { bytes: original } = buildWindowsImage(PLAN);
  const attempt = async (first: number, isFinal = false) => {
    const content = new MemoryContent(original.slice());
    const device = new Failing(content, first, isFinal);
    const store = new InVolumeStore({ reserve: 76 * BLOCK_SIZE });
    let error: unknown;
    await Volume.initialize(device, { store, shadowCopies: 'keep' }).catch((reason: unknown) => {
      error = reason;
    });
    return { content, error, calls: device.calls };
  };
  const { calls } = await attempt(Infinity);
  expect(calls).toBeGreaterThan(20);
  let whole = 0;
  for (let first = 0; first < calls; first++) {
    for (const isFinal of [false, true]) {
      const { content, error } = await attempt(first, isFinal);
      expect(error, `call ${first}`).toBeInstanceOf(DeviceError);
      if (content.size === SIZE) expect(Buffer.compare(content.bytes, original), `call ${first}`).toBe(0);
      else {
        // The device has failed at the very end, and whether the start block is durable nobody knows: it may be either.
        expect(String(error)).toContain('cannot be told');
        whole++;
        for (const start of [content.bytes.slice(0x1e00, 0x2000), original.slice(0x1e00, 0x2000)]) {
          const found = new MemoryContent(content.bytes.slice());
          found.bytes.set(start, 0x1e00);
          await using volume = await open(found, { readOnly: true });
          expect(await subjectsOf(volume.snapshots[0])).toHaveLength(SUBJECTS * BLOCK_SIZE);
        }
      }
    }
  }
  // The write of the start block and the flush after it, by a device that does not work again.
  expect(whole).toBe(2);
});

test('without the base the shadow copies are damaged, and are not read', async () => {
  const { content, volume } = await taken();
  await volume.createSnapshot();
  await volume.close();
  // As if a write of the control sector had gone elsewhere.
  const control = Math.ceil(SIZE / BLOCK_SIZE) * BLOCK_SIZE;
  const [first = 0] = ITEM_PAIRS;
  for (const item of [first, first + 1]) encodeItem(content.bytes, control + itemPosition(item), FREE_ITEM);
  await using reading = await open(content, { readOnly: true });
  expect(reading.snapshots.map(({ state }) => state)).toEqual(['damaged', 'damaged', 'ok']);
  await expect(reading.snapshots[0]?.read(0, 512)).rejects.toThrow('cannot be');
  expect((await checkVolume(new MemoryDevice(content))).map(({ code }) => code)).toContain(
    'snapshot-damaged',
  );
  await expect(open(content)).rejects.toThrow('not in the control blocks');
  await using repaired = await open(content, { onDamaged: 'drop' });
  expect(repaired.snapshots.map(({ state }) => state)).toEqual(['ok']);
  expect(repaired.recovery.droppedSnapshots).toHaveLength(2);
});

test('when the base is damaged, or the volume was changed by others, they go with it', async () => {
  for (const options of [
    { onDamaged: 'drop' },
    { onVolumeChanged: 'invalidate' },
  ] satisfies VolumeOptions[]) {
    const { content, volume } = await taken();
    await volume.close();
    if ('onDamaged' in options) {
      // The application information of the base.
      const areas = Math.ceil(SIZE / BLOCK_SIZE) + 10;
      content.bytes.fill(0xff, areas * BLOCK_SIZE, (areas + 2) * BLOCK_SIZE);
    } else content.resize(content.size + BLOCK_SIZE);
    const again = await open(content, options).catch((error: unknown) => String(error));
    if (typeof again === 'string') throw new Error(again);
    if ('onDamaged' in options) expect(again.snapshots).toEqual([]);
    await again.close();
  }
});
