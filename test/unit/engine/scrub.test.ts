/** Scrubbing a volume in use: its pace, its end, what it tells, and what it puts right. */
import { describe, expect, test } from 'vitest';
import type { DiffArea } from '../../../src/diff-area/diff-area.ts';
import type { Clock } from '../../../src/environment.ts';
import { DeviceError } from '../../../src/errors.ts';
import { repairCopy } from '../../../src/scrub/repair.ts';
import { explainProblem, type Problem } from '../../../src/snapshot/problem.ts';
import { BLOCK_SIZE, offsetOfSlot } from '../../../src/units.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World, type WorldOptions } from './world.ts';

/** The diff area of the snapshot that is `age`-th from the oldest. */
function areaOf(world: World, age: number): DiffArea {
  const area = world.volume.parts.writer?.engine.chain.records[age]?.area;
  if (area === undefined) throw new Error(`no snapshot ${age} with a diff area`);
  return area;
}

/** Where the copy of a block lies on the device of its diff area. */
const placeOf = (area: DiffArea, block: number): number =>
  area.file.runs.locate(offsetOfSlot(area.table.slotOf(block)));

/** Changes a byte of a copy, behind everybody's back. */
async function rot(area: DiffArea, block: number): Promise<void> {
  const { device } = area.file;
  const byte = new Uint8Array(1);
  await device.read(placeOf(area, block) + 1000, byte);
  await device.write(
    placeOf(area, block) + 1000,
    byte.map((value) => value ^ 0x10),
  );
}

/** Three snapshots, each with copies of blocks 0 to 7, and of block 20 in the newest alone. */
async function populated(options: WorldOptions = {}): Promise<World> {
  const world = await World.create({ seed: 'scrub', ...options });
  for (let i = 0; i < 3; i++) {
    await world.snapshot();
    for (let block = 0; block < 8; block++) await world.writeBlock(block);
  }
  await world.writeBlock(20);
  return world;
}

/** Time that stands still until somebody waits for it. */
class LeapingClock implements Clock {
  time = 0;
  now = () => this.time;
  monotonic = () => this.time;
  after(milliseconds: number, action: () => void): () => void {
    const timer = setImmediate(() => {
      this.time += milliseconds;
      action();
    });
    return () => clearImmediate(timer);
  }
}

/** Opens the world's volume again, with a clock of its own. */
async function withClock(world: World): Promise<LeapingClock> {
  const clock = new LeapingClock();
  const random = { fill: (target: Uint8Array) => target.fill(7) };
  await world.reopen({ environment: { clock, random } });
  return clock;
}

describe.each(LAYOUTS)('a scrub (%s)', (layout) => {
  test('reads everything, and tells how far it is and when it is over', async () => {
    const world = await populated({ layout });
    const seen: (readonly [number, number])[] = [];
    const events: unknown[] = [];
    world.volume.on('scrubProgress', ({ doneBytes, totalBytes }) => events.push([doneBytes, totalBytes]));
    world.volume.on('scrubbed', (event) => events.push(event));
    expect(world.volume.figures.scrub).toBeUndefined();
    const report = await world.volume.scrub({
      bytesPerSecond: 1024 * MEBIBYTE,
      onProgress: (done, total) => {
        expect(world.volume.figures.scrub).toEqual({
          doneBytes: done,
          totalBytes: total,
          problems: 0,
          bytesPerSecond: 1024 * MEBIBYTE,
        });
        seen.push([done, total]);
      },
    });
    const copies = 25 * BLOCK_SIZE;
    expect(report.problems).toEqual([]);
    expect(report.readBytes).toBeGreaterThan(copies);
    expect(seen.at(-1)).toEqual([copies, copies]);
    expect(seen.map(([done]) => done)).toEqual([...seen.map(([done]) => done)].sort((a, b) => a - b));
    expect(events).toEqual([...seen, { outcome: 'finished', problems: 0, doneBytes: copies }]);
    expect(world.volume.figures.scrub).toBeUndefined();
  });

  test('keeps its pace', async () => {
    const world = await populated({ layout });
    const clock = await withClock(world);
    const { readBytes } = await world.volume.scrub({ bytesPerSecond: MEBIBYTE });
    // What is taken last need not be waited for.
    expect(clock.time).toBeGreaterThan(((readBytes - MEBIBYTE) / MEBIBYTE) * 1000);
    expect(clock.time).toBeLessThanOrEqual((readBytes / MEBIBYTE) * 1000);
    await world.volume.close();
  });

  test.each(['signal', 'close'] as const)(
    'ends at once with its %s, in the middle of a wait',
    async (how) => {
      const world = await populated({ layout });
      const controller = new AbortController();
      const outcomes: string[] = [];
      world.volume.on('scrubbed', ({ outcome }) => outcomes.push(outcome));
      // So slow that it would take days.
      const scrub = world.volume.scrub({ bytesPerSecond: 1, signal: controller.signal });
      const failure = expect(scrub).rejects.toMatchObject(
        how === 'signal' ? { name: 'AbortError' } : { code: 'CLOSED' },
      );
      await new Promise((resolve) => setImmediate(resolve));
      if (how === 'signal') controller.abort();
      else await world.volume.close();
      await failure;
      expect(outcomes).toEqual(['stopped']);
      await expect(world.volume.scrub({ signal: AbortSignal.abort() })).rejects.toThrow(/abort|closed/);
      if (how === 'signal') expect((await world.volume.scrub()).problems).toEqual([]);
    },
  );

  test('keeps nobody waiting: a snapshot is deleted, and its space free, while it waits', async () => {
    const world = await populated({ layout });
    const controller = new AbortController();
    const scrub = world.volume.scrub({ bytesPerSecond: 1, signal: controller.signal });
    scrub.catch(() => undefined);
    await new Promise((resolve) => setImmediate(resolve));
    for (const snapshot of world.volume.snapshots.slice(0, 2)) await snapshot.delete({ wait: true });
    expect(world.volume.figures.deletion.snapshots).toBe(0);
    controller.abort();
    await expect(scrub).rejects.toThrow(/abort/);
    await world.expectRight();
  });

  test('says which copies are bad, and in which snapshots that matters', async () => {
    const world = await populated({ layout });
    const [oldest, , newest] = world.volume.snapshots;
    await rot(areaOf(world, 0), 3);
    await rot(areaOf(world, 2), 20);
    const told: unknown[] = [];
    world.volume.on('problemFound', ({ problem }) => told.push(problem));
    const { problems } = await world.volume.scrub();
    expect(problems).toMatchObject([
      { code: 'checksum', snapshot: oldest?.id, block: 3, affected: [oldest?.id] },
      {
        code: 'checksum',
        snapshot: newest?.id,
        block: 20,
        affected: world.volume.snapshots.map(({ id }) => id),
      },
    ]);
    expect(told).toEqual(problems);
    for (const [index, { affected = [], block = 0 }] of problems.entries())
      for (const snapshot of world.volume.snapshots) {
        const reading = snapshot.read(block * BLOCK_SIZE, BLOCK_SIZE);
        if (affected.includes(snapshot.id)) await expect(reading, `${index}`).rejects.toThrow(/checksum/);
        else await reading;
      }
    expect(problems.map(explainProblem)).toEqual([
      expect.stringContaining(`16384 bytes at 49152 cannot be read in ${oldest?.id};`),
      expect.stringContaining('cannot be read in'),
    ]);
  });

  test('repairs a copy whose bytes the volume or another snapshot has, and no other', async () => {
    const world = await populated({ layout });
    const [first, second] = [0, 1].map((age) => world.volume.snapshots[age]);
    if (first === undefined || second === undefined) throw new Error('three snapshots');
    // Block 3 of the oldest is in the volume again; block 4 of the oldest in a later snapshot; block 5 nowhere.
    const was = (block: number) =>
      world.model.of(first.id).slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    for (const block of [3, 4]) await world.write(block * BLOCK_SIZE, was(block));
    await world.snapshot();
    await world.writeBlock(4);
    for (const block of [3, 4, 5]) await rot(areaOf(world, 0), block);
    expect((await world.volume.scrub()).problems).toMatchObject([{ block: 3 }, { block: 4 }, { block: 5 }]);
    const { problems } = await world.volume.scrub({ repair: true });
    expect(problems.map(({ block, repaired }) => [block, repaired])).toEqual([
      [3, true],
      [4, true],
      [5, undefined],
    ]);
    expect((await world.volume.scrub()).problems).toMatchObject([{ block: 5 }]);
    await world.kill();
    expect((await world.volume.scrub()).problems).toMatchObject([{ block: 5 }]);
    const [oldest] = world.volume.snapshots;
    for (const block of [3, 4])
      expectSame(
        (await oldest?.read(block * BLOCK_SIZE, BLOCK_SIZE)) ?? new Uint8Array(),
        was(block),
        `block ${block}`,
      );
    await oldest?.delete();
    expect((await world.volume.scrub()).problems).toEqual([]);
    await world.expectRight();
  });

  test('writes the block of zeros again', async () => {
    const world = await populated({ layout });
    const { device, runs } = areaOf(world, 1).file;
    await device.write(runs.locate(offsetOfSlot(4)), new Uint8Array(1).fill(1));
    expect((await world.volume.scrub()).problems).toMatchObject([
      { code: 'checksum', message: 'the block of zeros is not zero; other readers see it' },
    ]);
    expect((await world.volume.scrub({ repair: true })).problems).toMatchObject([{ repaired: true }]);
    expect((await world.volume.scrub()).problems).toEqual([]);
  });

  test('goes on after a copy that cannot be read, and writes it again where it can', async () => {
    const world = await populated({ layout });
    const [area, first] = [areaOf(world, 0), world.volume.snapshots[0]];
    const was = (block: number) =>
      world.model.of(first?.id ?? '').slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    await world.write(6 * BLOCK_SIZE, was(6));
    const bad = new Set([6, 7].map((block) => placeOf(area, block)));
    const storeId = first?.storeId ?? '';
    world.hooks.before = ({ kind, offset, length, target }) => {
      if (layout === 'directory' && !target.includes(storeId)) return undefined;
      if (kind === 'write') bad.delete(offset);
      const isBad = [...bad].some((place) => place >= offset && place < offset + length);
      if (kind === 'read' && isBad) throw new DeviceError('a bad sector');
      return undefined;
    };
    const found = { code: 'unreadable', message: 'a bad sector', snapshot: first?.id };
    expect((await world.volume.scrub()).problems).toMatchObject([
      { ...found, block: 6 },
      { ...found, block: 7 },
    ]);
    expect((await world.volume.scrub({ repair: true })).problems).toMatchObject([
      { block: 6, repaired: true },
      { block: 7 },
    ]);
    expect((await world.volume.scrub()).problems).toMatchObject([{ block: 7 }]);
  });

  test('of a device that is gone it fails', async () => {
    const world = await World.create({ layout, size: 4 * MEBIBYTE });
    await world.snapshot();
    for (let block = 0; block < 100; block++) await world.writeBlock(block);
    const start = placeOf(areaOf(world, 0), 0);
    world.hooks.before = ({ kind, offset, length }) => {
      if (kind === 'read' && length >= BLOCK_SIZE && offset >= start) throw new DeviceError('it is gone');
      return undefined;
    };
    await expect(world.volume.scrub()).rejects.toThrow(/it is gone/);
  });

  test('writes a control file again that is not what was written', async () => {
    const world = await populated({ layout });
    const control = world.volume.parts.writer?.engine.store.control;
    const device =
      layout === 'in-volume'
        ? world.device()
        : await world.folder.open((await world.folder.list()).find((each) => !each.includes('}{')) ?? '', {
            writable: true,
          });
    await device.write(control?.start.firstControlBlock ?? 0, new Uint8Array(BLOCK_SIZE));
    expect((await world.volume.scrub()).problems).toMatchObject([{ code: 'store-damaged' }]);
    expect((await world.volume.scrub({ repair: true })).problems).toMatchObject([
      { code: 'store-damaged', repaired: true },
    ]);
    expect((await world.volume.scrub()).problems).toEqual([]);
    await world.kill();
    await world.expectRight();
  });
});

test('for a repair nobody looks into a deleted snapshot, of which what is merged may be cut off', async () => {
  const world = await populated();
  const { engine } = world.volume.parts.writer ?? {};
  const [record, middle] = engine?.chain.records ?? [];
  if (engine === undefined || record === undefined || middle === undefined) throw new Error('no snapshots');
  const [area, cut] = [areaOf(world, 0), areaOf(world, 1)];
  await rot(area, 3);
  await cut.cut(await cut.tableBackwards(), 0, async () => undefined);
  middle.markDeleted('requested');
  const problem: Problem = { code: 'checksum', snapshot: record.id, message: 'bad', block: 3 };
  const bad = { record, area, problem, isNeeded: () => true };
  expect(await repairCopy(engine.device, [record, middle], bad)).toBe(problem);
});

test('of a deleted snapshot whose table is cut off on the way, what was written to it is not missed', async () => {
  const world = await World.create({ seed: 'cut' });
  await world.snapshot();
  const middle = await world.snapshot({ writable: true });
  await world.snapshot();
  await middle.write(0, new Uint8Array(512).fill(7));
  await middle.flush();
  await world.volume.settled();
  const [, record] = world.volume.parts.writer?.engine.chain.records ?? [];
  const cut = areaOf(world, 1);
  record?.markDeleted('requested');
  await cut.cut(await cut.tableBackwards(), 0, async () => undefined);
  expect((await world.volume.scrub()).problems).toEqual([]);
});

test('a volume that is open for reading only is not scrubbed', async () => {
  const world = await World.create();
  await world.reopen({ readOnly: true });
  await expect(world.volume.scrub()).rejects.toMatchObject({ code: 'READ_ONLY' });
});

test('a pace that makes no sense is refused', async () => {
  const world = await World.create();
  await expect(world.volume.scrub({ bytesPerSecond: -1 })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});
