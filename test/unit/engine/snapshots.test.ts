/** Taking, listing, deleting and comparing snapshots, as users of the package see it. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  HoldTimeoutError,
  InvalidArgumentError,
  LimitError,
  SnapshotDeletedError,
} from '../../../src/errors.ts';
import type { VolumeEvents } from '../../../src/snapshot/events.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import type { ChangedExtent } from '../../../src/volume/changed-blocks.ts';
import type { ChangedBlocksOptions, Volume } from '../../../src/volume/volume.ts';
import { settle, signal } from './hooks.ts';
import { KIBIBYTE, LAYOUTS, MEBIBYTE, World } from './world.ts';

describe.each(LAYOUTS)('snapshots (%s)', (layout) => {
  test('stay as they were through random writes, reopening and killing', async () => {
    for (let round = 0; round < 6; round++) {
      const world = await World.create({ layout, seed: `life ${round}`, size: MEBIBYTE + 4321 });
      for (let step = 0; step < 25; step++) {
        const kind = world.random.below(12);
        if (kind < 2) await world.snapshot();
        else if (kind === 2) await world.volume.deleteOldest();
        else if (kind === 3) await world.reopen();
        else if (kind === 4) await world.kill();
        else await world.writeRandomly(5);
      }
      await world.expectRight();
    }
  });

  test('are listed oldest first, with what they were given, before and after opening again', async () => {
    const world = await World.create({ layout });
    const label = 'vor dem Update — до обновления 更新前 🗻 \u0000 e\u0301';
    const applicationInfo = world.random.fill(new Uint8Array(1000));
    const before = Date.now();
    await world.snapshot({ label, applicationInfo });
    await world.snapshot();
    await world.snapshot({ label: '', applicationInfo: new Uint8Array(0) });
    const check = (volume: Volume) => {
      const [first, second, third] = volume.snapshots;
      expect(volume.snapshots.map(({ order }) => order)).toEqual([1, 2, 3]);
      expect(first?.label).toBe(label);
      expect(first?.applicationInfo).toEqual(applicationInfo);
      expect(second?.label).toBeUndefined();
      expect(second?.applicationInfo).toBeUndefined();
      expect(third?.label).toBe('');
      expect(third?.applicationInfo).toEqual(new Uint8Array(0));
      for (const snapshot of volume.snapshots) {
        expect(snapshot.size).toBe(world.size);
        expect(snapshot.state).toBe('ok');
        expect(snapshot.storeId).toBe(snapshot.id);
        expect(snapshot.setId).toMatch(/^[0-9a-f-]{36}$/);
        expect(Math.abs(snapshot.createdAt.getTime() - before)).toBeLessThan(60_000);
        expect(snapshot.usedBytes).toBeLessThanOrEqual(snapshot.allocatedBytes);
      }
    };
    check(world.volume);
    check(await world.reopen());
    check(await world.kill());
    check(await world.reopen({ readOnly: true }));
  });

  test('take application information up to the limit, and nothing of one that is over it stays', async () => {
    const world = await World.create({ layout });
    // 64 bytes of VSS fields, two empty names of 2, a section header of 8: 16,256 in all.
    const most = 16_256 - 64 - 2 * 2 - 8;
    const applicationInfo = world.random.fill(new Uint8Array(most));
    await world.snapshot({ applicationInfo });
    const files = (await world.folder.list()).length;
    const allocated = world.volume.figures.allocatedBytes;
    const tooMuch = { applicationInfo: new Uint8Array(most + 1) };
    await expect(world.volume.createSnapshot(tooMuch)).rejects.toThrow(LimitError);
    const both = { applicationInfo: new Uint8Array(most - 10), label: 'abc' };
    await expect(world.volume.createSnapshot(both)).rejects.toThrow(/by 1$/);
    await expect(world.volume.createSnapshot({ label: '\ud800' })).rejects.toThrow(InvalidArgumentError);
    await settle();
    expect((await world.folder.list()).length).toBe(files);
    expect(world.volume.figures.allocatedBytes).toBe(allocated);
    await world.reopen();
    expect(world.volume.snapshots.map((snapshot) => snapshot.applicationInfo)).toEqual([applicationInfo]);
  });

  test('that cannot be described cost no other snapshot its life', async () => {
    // Room for two diff areas, both taken: a third would have to push the oldest out.
    const world = await World.create({ layout, maximumSize: 22 * BLOCK_SIZE });
    await world.snapshot();
    await world.writeBlock(1, 4);
    await world.snapshot();
    await settle();
    const there = world.volume.snapshots.length;
    const options = { applicationInfo: new Uint8Array(20_000) };
    await expect(world.volume.createSnapshot(options)).rejects.toThrow(LimitError);
    expect(world.volume.snapshots).toHaveLength(there);
  });

  test('that were deleted do not come back', async () => {
    const world = await World.create({ layout });
    const [a, b, c] = [await world.snapshot(), await world.snapshot(), await world.snapshot()];
    await a.delete();
    expect(a.state).toBe('deleted');
    expect(a.problem).toBe('requested');
    await expect(a.read(0, 1)).rejects.toThrow(SnapshotDeletedError);
    await expect(a.delete()).rejects.toThrow(SnapshotDeletedError);
    await world.kill();
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([b.id, c.id]);
    await world.volume.deleteOldest(100);
    expect(world.volume.snapshots).toEqual([]);
    await settle();
    expect(world.volume.figures.allocatedBytes).toBe(0);
    if (layout === 'directory') expect(await world.folder.list()).toHaveLength(1);
    await world.snapshot();
    await world.writeBlock(0, 10);
    await world.expectRight();
  });

  test('all go while writers and readers are busy, and writes never fail', async () => {
    for (let round = 0; round < 10; round++) {
      const world = await World.create({ layout, seed: `busy ${round}` });
      for (let i = 0; i < 4; i++) {
        await world.snapshot();
        await world.writeRandomly(5);
      }
      const writing = Promise.all(Array.from({ length: 30 }, (_, i) => world.writeBlock(i * 2)));
      const reading = world.volume.snapshots.map((snapshot) =>
        snapshot.read(0, world.size).catch((error: unknown) => {
          expect(error).toBeInstanceOf(SnapshotDeletedError);
        }),
      );
      if (world.random.chance(0.5)) await settle();
      await Promise.all([writing, ...reading, world.volume.deleteOldest(4)]);
      await world.snapshot();
      await world.writeRandomly(5);
      await world.expectRight();
      await settle();
      expect(world.volume.snapshots).toHaveLength(1);
      const [left] = world.volume.snapshots;
      expect(world.volume.figures.allocatedBytes).toBe(left?.allocatedBytes);
    }
  });

  test('wait for writes in flight and hold new ones, which then go on in order', async () => {
    const world = await World.create({ layout });
    const go = signal();
    const isSlow = ({ target, kind, offset }: { target: string; kind: string; offset: number }) =>
      target === 'volume' && kind === 'write' && offset === 3 * BLOCK_SIZE;
    world.hooks.before = (operation) => (isSlow(operation) ? go.promise : undefined);
    const order: string[] = [];
    const inFlight = world.writeBlock(3).then(() => order.push('in flight'));
    await settle();
    const creating = world.volume.createSnapshot().then((snapshot) => {
      order.push('snapshot');
      return snapshot;
    });
    await settle();
    const bytes = new Uint8Array(BLOCK_SIZE).fill(9);
    const queued = [10, 11, 12].map((block) =>
      world.volume.write(block * BLOCK_SIZE, bytes).then(() => order.push(`queued ${block}`)),
    );
    await world.volume.read(0, 100); // reads go on
    await settle();
    expect(world.volume.figures.queues.held).toBe(3);
    expect(order).toEqual([]);
    go.fire();
    const snapshot = await creating;
    await inFlight;
    world.model.snapshots.set(snapshot.id, world.model.bytes.slice());
    await Promise.all(queued);
    for (const block of [10, 11, 12]) world.model.write(block * BLOCK_SIZE, bytes);
    expect(order[0]).toBe('in flight');
    await world.expectRight();
  });

  test('that cannot be taken within the hold limit leave nothing behind, and writes go on', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    await settle();
    const files = await world.folder.list();
    const allocated = world.volume.figures.allocatedBytes;
    const events: unknown[] = [];
    world.volume.on('holdTimedOut', (event) => events.push(event));
    for (const kind of ['write', 'flush']) {
      const go = signal();
      let flushes = 0;
      world.hooks.before = ({ target, kind: operation, offset }) => {
        if (target !== 'volume' || operation !== kind) return undefined;
        if (kind === 'write') return offset === 5 * BLOCK_SIZE ? go.promise : undefined;
        // The flush under hold comes after the two before the hold, and in-volume after those of diff area and control file.
        flushes++;
        return flushes === (layout === 'directory' ? 3 : 5) ? go.promise : undefined;
      };
      const slow = kind === 'write' ? world.writeBlock(5) : undefined;
      await settle();
      const creating = world.volume.createSnapshot({ holdTimeoutMs: 50 });
      await expect(creating).rejects.toThrow(HoldTimeoutError);
      go.fire();
      await slow;
      world.hooks.before = () => undefined;
      await world.writeBlock(6);
      await settle();
      expect(await world.folder.list()).toEqual(files);
      expect(world.volume.figures.allocatedBytes).toBe(allocated);
      expect(world.volume.snapshots).toHaveLength(1);
    }
    expect(events).toEqual([{ limitMs: 50 }, { limitMs: 50 }]);
    await world.snapshot();
    await world.writeBlock(5);
    await world.expectRight();
    await world.kill();
    await world.expectRight();
  });

  test('of one moment come one after the other when asked for together', async () => {
    const world = await World.create({ layout });
    const all = await Promise.all(Array.from({ length: 8 }, () => world.snapshot()));
    expect(all.map(({ order }) => order)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const times = all.map(({ createdAt }) => createdAt.getTime());
    expect(times).toEqual([...times].sort((a, b) => a - b));
    await world.writeRandomly(10);
    await world.expectRight();
  });

  test('are told of in events with their ids, reasons and sizes', async () => {
    const world = await World.create({ layout, size: 4 * MEBIBYTE });
    const events: [keyof VolumeEvents, unknown][] = [];
    const names = ['created', 'deleted', 'grown', 'overflow', 'backgroundFailure'] as const;
    for (const name of names) world.volume.on(name, (event: unknown) => events.push([name, event]));
    const snapshot = await world.snapshot();
    expect(events).toEqual([['created', { id: snapshot.id }]]);
    await world.writeBlock(0, 200);
    await settle();
    const grown = events.flatMap(([name, event]) =>
      name === 'grown' ? [event as VolumeEvents['grown'][0]] : [],
    );
    expect(grown.length).toBeGreaterThan(0);
    expect(grown.every(({ id, bytes }) => id === snapshot.id && bytes % BLOCK_SIZE === 0)).toBe(true);
    expect(grown.at(-1)?.allocatedBytes).toBe(snapshot.allocatedBytes);
    events.length = 0;
    await snapshot.delete();
    expect(events).toEqual([['deleted', { id: snapshot.id, reason: 'requested', cause: undefined }]]);
  });
});

async function collect(volume: Volume, options: ChangedBlocksOptions): Promise<ChangedExtent[]> {
  const extents: ChangedExtent[] = [];
  for await (const extent of volume.changedBlocks(options)) extents.push(extent);
  return extents;
}

const blocksOf = (extents: readonly ChangedExtent[]): number[] =>
  extents.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / BLOCK_SIZE) }, (_, i) => offset / BLOCK_SIZE + i),
  );

describe.each(LAYOUTS)('changed blocks (%s)', (layout) => {
  test('between any two moments are those written, and compared those that differ', async () => {
    for (let round = 0; round < 4; round++) {
      const world = await World.create({
        layout,
        seed: `changed ${round}`,
        size: 40 * BLOCK_SIZE + (round % 2) * 777,
        filled: round < 2,
      });
      const written: Set<number>[] = [];
      const ids: string[] = [];
      for (let i = 0; i < 5; i++) {
        ids.push((await world.snapshot()).id);
        const blocks = new Set<number>();
        for (let w = world.random.below(8); w > 0; w--) {
          const block = world.random.below(40);
          const back = ids[0];
          // Sometimes the bytes that were there at first, so that a written block is equal again.
          if (world.random.chance(0.3) && back !== undefined) {
            const at = block * BLOCK_SIZE;
            await world.write(at, world.model.of(back).slice(at, at + BLOCK_SIZE));
          } else await world.writeBlock(block);
          blocks.add(block);
        }
        written.push(blocks);
      }
      for (const reopen of [false, true]) {
        if (reopen) await world.kill();
        const { snapshots } = world.volume;
        for (let from = 0; from < 5; from++) {
          for (let to = from; to <= 5; to++) {
            const since = snapshots[from];
            const until = snapshots[to];
            if (since === undefined) throw new Error('five snapshots');
            const options = until === undefined ? { since } : { since, until };
            const differing = [...world.model.changed(since.id, until?.id)].sort((a, b) => a - b);
            const all = await collect(world.volume, options);
            const name = `seed changed ${round}, ${from} to ${to}`;
            const wanted = new Set(written.slice(from, to).flatMap((set) => [...set]));
            // In-volume every snapshot has block 0, so that one is compared.
            if (layout === 'in-volume' && !differing.includes(0)) wanted.delete(0);
            expect(blocksOf(all), name).toEqual([...wanted].sort((a, b) => a - b));
            for (const { offset, length } of all) expect(offset + length).toBeLessThanOrEqual(world.size);
            const compared = await collect(world.volume, { ...options, compare: true });
            expect(blocksOf(compared), `${name}, compared`).toEqual(differing);
          }
        }
      }
    }
  });

  test('since ever are all but what is known to be zero, and reach from one multiple to another', async () => {
    const world = await World.create({ layout, size: 40 * BLOCK_SIZE + 777, filled: false });
    const { volume } = world;
    const writes = [3, 4, 9, 30, 40];
    for (const block of writes) await world.write(block * BLOCK_SIZE, new Uint8Array(777).fill(block));
    const until = await world.snapshot();
    await world.write(20 * BLOCK_SIZE, new Uint8Array(1).fill(1));
    expect(blocksOf(await collect(volume, { until, compare: true }))).toEqual(writes);
    expect(blocksOf(await collect(volume, { compare: true }))).toEqual([3, 4, 9, 20, 30, 40]);
    const data = new Set(blocksOf(await collect(volume, { until })));
    expect(writes.filter((block) => !data.has(block))).toEqual([]);

    const extents = [
      { offset: 0, length: 12 * BLOCK_SIZE },
      { offset: 28 * BLOCK_SIZE, length: 4 * BLOCK_SIZE },
      { offset: 40 * BLOCK_SIZE, length: 777 },
    ];
    const alignment = 4 * BLOCK_SIZE;
    expect(await collect(volume, { until, compare: true, alignment })).toEqual(extents);
    for (const block of [0, 11, 31]) await world.write(block * BLOCK_SIZE, new Uint8Array(1).fill(99));
    expect(blocksOf(await collect(volume, { since: until, alignment }))).toEqual(
      [0, 8, 20, 28].flatMap((block) => [block, block + 1, block + 2, block + 3]),
    );
    for (const wrong of [0, -1, 0.5])
      await expect(collect(volume, { since: until, alignment: wrong })).rejects.toThrow(InvalidArgumentError);
  });

  test('are refused the wrong way round, for deleted snapshots and for those of another volume', async () => {
    const world = await World.create({ layout });
    const other = await World.create({ layout });
    const a = await world.snapshot();
    const b = await world.snapshot();
    const foreign = await other.snapshot();
    await expect(collect(world.volume, { since: b, until: a })).rejects.toThrow(InvalidArgumentError);
    await expect(collect(world.volume, { since: foreign })).rejects.toThrow(InvalidArgumentError);
    await a.delete();
    await expect(collect(world.volume, { since: a })).rejects.toThrow(SnapshotDeletedError);
  });

  test('stop when they are aborted', async () => {
    const world = await World.create({ layout });
    const since = await world.snapshot();
    for (let block = 1; block < 20; block += 2) await world.writeBlock(block);
    const controller = new AbortController();
    const seen: number[] = [];
    await expect(
      (async () => {
        for await (const { offset } of world.volume.changedBlocks({ since, signal: controller.signal })) {
          seen.push(offset);
          if (seen.length === 3) controller.abort();
        }
      })(),
    ).rejects.toThrow(/abort/);
    expect(seen).toHaveLength(3);
  });
});

describe('the greatest number of snapshots', () => {
  test.each(LAYOUTS)('is 512, and they open again in bounded time (%s)', async (layout) => {
    const world = await World.create({
      layout,
      size: 64 * BLOCK_SIZE,
      reserve: 128 * MEBIBYTE,
      growth: { initial: 9 * BLOCK_SIZE, maximum: 16 * BLOCK_SIZE },
    });
    const kept = new Set([1, 2, 63, 64, 127, 255, 511, 512]);
    for (let i = 1; i <= 512; i++) {
      const snapshot = await world.volume.createSnapshot({ label: `number ${i}` });
      if (kept.has(i)) world.model.snapshots.set(snapshot.id, world.model.bytes.slice());
      if (i % 3 === 0) await world.writeBlock(i % 64);
    }
    await settle();
    const files = (await world.folder.list()).length;
    await expect(world.volume.createSnapshot()).rejects.toThrow(LimitError);
    await settle();
    expect((await world.folder.list()).length).toBe(files);
    await world.volume.close();
    const started = performance.now();
    await world.open();
    const milliseconds = performance.now() - started;
    expect(world.volume.snapshots).toHaveLength(512);
    expect(milliseconds, 'time to open').toBeLessThan(5000);
    console.info(`512 snapshots (${layout}) open in ${Math.round(milliseconds)} ms`);
    for (const snapshot of world.volume.snapshots.filter(({ order }) => kept.has(order))) {
      expect(snapshot.label).toBe(`number ${snapshot.order}`);
      const bytes = await snapshot.read(0, world.size);
      expect(Buffer.compare(bytes, world.model.of(snapshot.id)), `snapshot ${snapshot.order}`).toBe(0);
    }
    await world.volume.deleteOldest();
    const next = await world.volume.createSnapshot();
    expect(next.order).toBe(513);
    expect(world.volume.snapshots).toHaveLength(512);
  });
});

describe('labels', () => {
  test('come back as they were, whatever well-formed text they are', async () => {
    const world = await World.create({ size: 64 * KIBIBYTE });
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 200 }), async (label) => {
        const snapshot = await world.volume.createSnapshot({ label });
        await world.reopen();
        expect(world.volume.snapshots.at(-1)?.label).toBe(label);
        expect(world.volume.snapshots.at(-1)?.id).toBe(snapshot.id);
        await world.volume.deleteOldest(10);
      }),
      { numRuns: 30 },
    );
  });
});
