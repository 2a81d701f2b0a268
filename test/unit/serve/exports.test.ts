/** The exports of served volumes and what they tell, without a network. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { StatusContext } from '../../../src/nbd/server/export.ts';
import { ChangeContexts, snapshotNamed } from '../../../src/serve/change-contexts.ts';
import { controlSocketsOf, identityOf, makePlaceInMemory } from '../../../src/serve/control-place.ts';
import { VolumeExports } from '../../../src/serve/volume-exports.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { LAYOUTS, World } from '../engine/world.ts';

const SIZE = 32 * BLOCK_SIZE;

/** Three snapshots; block i + 1 was written after the i-th, and block 10 after each. */
async function populated(layout: 'directory' | 'in-volume' = 'directory') {
  const world = await World.create({ layout, size: SIZE });
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) {
    ids.push((await world.snapshot({ label: `number ${i}` })).id);
    await world.writeBlock(i + 1);
    await world.writeBlock(10);
  }
  const [a = '', b = '', c = ''] = ids;
  return { world, volume: world.volume, a, b, c };
}

/** Blocks that a context calls dirty in a range; and the extents must cover it. */
async function dirtyBlocks(context: StatusContext | undefined, offset = 0, length = SIZE): Promise<number[]> {
  const blocks: number[] = [];
  let at = offset;
  for await (const { length: part, status } of context?.extents(offset, length) ?? []) {
    expect(part).toBeGreaterThan(0);
    if (status !== 0) {
      expect(status).toBe(1);
      for (let block = at; block < at + part; block += BLOCK_SIZE) blocks.push(block / BLOCK_SIZE);
    }
    at += part;
  }
  expect(at).toBe(offset + length);
  return blocks;
}

describe.each(LAYOUTS)('contexts of changes (%s)', (layout) => {
  test('tell what changed since a snapshot, and between two', async () => {
    const { volume, a, b, c } = await populated(layout);
    const live = new ChangeContexts(volume, undefined, SIZE);
    const dirty = (query: string, ...range: number[]) => dirtyBlocks(live.select(query)[0], ...range);
    expect(await dirty(`qemu:dirty-bitmap:since-${a}`)).toEqual([1, 2, 3, 10]);
    expect(await dirty(`qemu:dirty-bitmap:since-${c}`)).toEqual([3, 10]);
    expect(await dirty(`volsnap:changed:${a}..${b}`)).toEqual([1, 10]);
    expect(await dirty(`volsnap:changed:${a}..${c}`)).toEqual([1, 2, 10]);
    expect(await dirty(`volsnap:changed:${a}..${a}`)).toEqual([]);
    expect(await dirty(`qemu:dirty-bitmap:since-${a}`, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE)).toEqual([2, 3]);
    const atB = new ChangeContexts(volume, snapshotNamed(volume, b), SIZE);
    expect(await dirtyBlocks(atB.select(`qemu:dirty-bitmap:since-${a}`)[0])).toEqual([1, 10]);
    expect(atB.select(`qemu:dirty-bitmap:since-${b}`)).toEqual([]);
    expect(atB.select(`qemu:dirty-bitmap:since-${c}`)).toEqual([]);
  });
});

test('contexts are listed by namespace, and wildcards select nothing', async () => {
  const { volume, a, b, c } = await populated();
  const contexts = new ChangeContexts(volume, undefined, SIZE);
  const since = [a, b, c].map((id) => `qemu:dirty-bitmap:since-${id}`);
  const neighbours = [`volsnap:changed:${a}..${b}`, `volsnap:changed:${b}..${c}`];
  expect(contexts.list()).toEqual([...since, 'volsnap:changed:']);
  expect(contexts.list('qemu:')).toEqual(since);
  expect(contexts.list('qemu:dirty-bitmap:')).toEqual(since);
  expect(contexts.list('volsnap:')).toEqual(['volsnap:changed:']);
  expect(contexts.list('volsnap:changed:')).toEqual(neighbours);
  expect(contexts.list(`volsnap:changed:${a}..${c}`)).toEqual([`volsnap:changed:${a}..${c}`]);
  expect(contexts.list(since[1])).toEqual([since[1]]);
  for (const query of ['', 'qemu:', 'qemu:dirty-bitmap:', 'volsnap:', 'volsnap:changed:', 'base:', 'other:x'])
    expect(contexts.select(query), query).toEqual([]);
  for (const query of [`${a}..`, `..${a}`, `${c}..${a}`, `${a}..${b}..${c}`, 'zz..yy'])
    expect(contexts.select(`volsnap:changed:${query}`), query).toEqual([]);
});

test('a context that is selected is named as it was asked for, short ids too', async () => {
  const { volume, a } = await populated();
  const query = `qemu:dirty-bitmap:since-${a.slice(0, 10)}`;
  expect(new ChangeContexts(volume, undefined, SIZE).select(query)[0]?.name).toBe(query);
});

test('the list finds every context that can be selected, and gives its whole name', async () => {
  const { volume, a, b } = await populated();
  const contexts = new ChangeContexts(volume, undefined, SIZE);
  const [short, shortB] = [a.slice(0, 10), b.slice(0, 12).toUpperCase()];
  expect(contexts.list(`qemu:dirty-bitmap:since-${short}`)).toEqual([`qemu:dirty-bitmap:since-${a}`]);
  expect(contexts.list(`qemu:dirty-bitmap:since-${shortB}`)).toEqual([`qemu:dirty-bitmap:since-${b}`]);
  expect(contexts.list(`volsnap:changed:${short}..${shortB}`)).toEqual([`volsnap:changed:${a}..${b}`]);
  const atA = new ChangeContexts(volume, snapshotNamed(volume, a), SIZE);
  for (const query of ['since-', `since-${short}`, 'since-zz', 'nothing'])
    expect(atA.list(`qemu:dirty-bitmap:${query}`), query).toEqual([]);
});

test('an id stands for a snapshot while it is clear', async () => {
  const { volume, a } = await populated();
  expect(snapshotNamed(volume, a)?.id).toBe(a);
  expect(snapshotNamed(volume, a.slice(0, 12).toUpperCase())?.id).toBe(a);
  expect(snapshotNamed(volume, '')).toBeUndefined();
  expect(snapshotNamed(volume, 'no hex at all')).toBeUndefined();
  // Every id begins with one of 16 digits, so with enough snapshots some beginning is not clear.
  const world = await World.create({ size: SIZE });
  for (let i = 0; i < 17; i++) await world.snapshot();
  const first = world.volume.snapshots.map(({ id }) => id.charAt(0));
  const shared = first.find((digit, i) => first.indexOf(digit) !== i) ?? '';
  expect(snapshotNamed(world.volume, shared)).toBeUndefined();
});

describe('the catalog', () => {
  test('of one volume has the empty name; of several it has names', async () => {
    const { volume, a } = await populated();
    const one = new VolumeExports([{ volume, name: 'a.img' }]);
    expect(
      one
        .list()
        .map(({ name }) => name)
        .slice(0, 3),
    ).toEqual(['', 'live', `snapshot/${a}`]);
    expect(one.list()[2]?.description).toContain('number 0');
    const several = new VolumeExports([
      { volume, name: 'a.img' },
      { volume: (await populated()).volume, name: 'b' },
    ]);
    expect(several.list().map(({ name }) => name)).toContain(`a.img/snapshot/${a}`);
    for (const name of ['', 'live', `snapshot/${a}`, 'c/live', 'a.img/', 'a.img/dead', `b/snapshot/${a}`])
      expect(await several.open(name), name).toBeUndefined();
    expect((await several.open('a.img'))?.size).toBe(SIZE);
    expect((await several.open('b/live'))?.writable).toBe(true);
  });

  test('names a snapshot as in the list, however short the name was by which it was found', async () => {
    const { volume, a } = await populated();
    const one = new VolumeExports([{ volume, name: 'a.img' }]);
    const several = new VolumeExports([
      { volume, name: 'a.img' },
      { volume: (await populated()).volume, name: 'b' },
    ]);
    for (const id of [a, a.slice(0, 10), a.slice(0, 12).toUpperCase()]) {
      expect((await one.open(`snapshot/${id}`))?.name).toBe(`snapshot/${a}`);
      expect((await several.open(`a.img/snapshot/${id}`))?.name).toBe(`a.img/snapshot/${a}`);
    }
    expect((await one.open(''))?.name).toBe('');
    expect((await one.open('live'))?.name).toBe('live');
  });

  test('counts who uses what, and what fails', async () => {
    const { volume, a, world } = await populated();
    const catalog = new VolumeExports([{ volume, name: '' }]);
    const [live, snapshot] = [await catalog.open('live'), await catalog.open(`snapshot/${a}`)];
    await live?.write(0, new Uint8Array(1000));
    await live?.read(0, new Uint8Array(500));
    await snapshot?.read(0, new Uint8Array(300));
    await expect(snapshot?.write(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'READ_ONLY' });
    await volume.deleteOldest();
    await expect(snapshot?.read(0, new Uint8Array(300))).rejects.toMatchObject({ code: 'SNAPSHOT_DELETED' });
    expect(catalog.figures.live).toMatchObject({
      users: 1,
      reads: 1,
      readBytes: 500,
      writes: 1,
      writtenBytes: 1000,
      failures: 0,
    });
    expect(catalog.figures.snapshot).toMatchObject({ users: 1, reads: 2, failures: 1 });
    live?.release();
    snapshot?.release();
    expect([catalog.figures.live.users, catalog.figures.snapshot.users]).toEqual([0, 0]);
    await world.volume.close();
  });

  test('of a snapshot may be written where the snapshot may; contexts tell it', async () => {
    const { world, volume, a, b } = await populated();
    const catalog = new VolumeExports([{ volume, name: '' }]);
    expect((await catalog.open(`snapshot/${b}`))?.writable).toBe(false);
    await snapshotNamed(volume, b)?.setWritable(true);
    const written = await catalog.open(`snapshot/${b}`);
    expect(written?.writable).toBe(true);
    const bytes = world.random.fill(new Uint8Array(1000));
    await written?.write(20 * BLOCK_SIZE, bytes);
    await written?.writeZeroes(10 * BLOCK_SIZE, 512, true);
    await written?.discard(0, SIZE);
    await written?.flush();
    world.model.of(b).set(bytes, 20 * BLOCK_SIZE);
    world.model.of(b).fill(0, 10 * BLOCK_SIZE, 10 * BLOCK_SIZE + 512);
    await world.expectRight();
    expect(await dirtyBlocks(written?.contexts.select(`qemu:dirty-bitmap:since-${a}`)[0])).toEqual([
      1, 10, 20,
    ]);
    expect(await dirtyBlocks(written?.contexts.select(`volsnap:changed:${b}..${b}`)[0])).toEqual([]);
    const readOnly = new VolumeExports([{ volume, name: '' }], { readOnly: true });
    expect((await readOnly.open(`snapshot/${b}`))?.writable).toBe(false);
  });

  test('that is read-only lets nobody write', async () => {
    const { volume } = await populated();
    const catalog = new VolumeExports([{ volume, name: '' }], { readOnly: true });
    expect((await catalog.open(''))?.writable).toBe(false);
  });
});

describe('the folder of sockets', () => {
  test('is only one that nobody else can write to', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'volsnap-place-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    vi.stubEnv('XDG_RUNTIME_DIR', folder);
    onTestFinished(() => void vi.unstubAllEnvs());
    const own = join(folder, 'volsnap');
    await mkdir(own, { mode: 0o755 });
    const places = () => controlSocketsOf({ volume: folder });
    expect((await places()).filter((path) => path.startsWith(own))).toEqual([]);
    await rm(own, { recursive: true });
    const { control } = await makePlaceInMemory((await identityOf(folder)) ?? '');
    expect(control.startsWith(`${own}/`)).toBe(true);
    expect(await places()).toContain(control);
    expect(await controlSocketsOf({ volume: folder, store: 'there' })).toEqual([
      join(process.cwd(), 'there/control.sock'),
    ]);
  });
});
