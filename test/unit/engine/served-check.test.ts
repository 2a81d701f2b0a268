/** Looking for damage in a volume that is in use. */
import { describe, expect, test } from 'vitest';
import { checkServedVolume } from '../../../src/check/served.ts';
import type { DiffArea } from '../../../src/diff-area/diff-area.ts';
import { offsetOfSlot } from '../../../src/units.ts';
import type { WriteMode } from '../../../src/volume/assemble.ts';
import { LAYOUTS, type Layout, MEBIBYTE, World } from './world.ts';

/** The diff area of the snapshot that is `age`-th from the oldest. */
function areaOf(world: World, age: number): DiffArea {
  const area = world.volume.parts.writer?.engine.chain.records[age]?.area;
  if (area === undefined) throw new Error(`no snapshot ${age} with a diff area`);
  return area;
}

/** Changes a byte on the device of a diff area, behind everybody's back. */
async function flip({ file: { device } }: DiffArea, offset: number): Promise<void> {
  const byte = new Uint8Array(1);
  await device.read(offset, byte);
  await device.write(
    offset,
    byte.map((value) => value ^ 0x10),
  );
}

const codes = async (world: World, scrub = false) =>
  (await checkServedVolume(world.volume, { scrub })).map(({ code, snapshot }) => ({ code, snapshot }));

const MODES: readonly WriteMode[] = ['ordered', 'writeback'];
const CASES = LAYOUTS.flatMap((layout) => MODES.map((writeMode) => ({ layout, writeMode })));

describe.each(CASES)('while everything goes on ($layout, $writeMode)', ({ layout, writeMode }) => {
  test.each([1, 2, 3])('nothing is found that is not there (seed %i)', async (seed) => {
    const world = await World.create({ layout, seed: `served ${seed}`, size: 2 * MEBIBYTE });
    world.options = { writeMode };
    await world.reopen();
    // Devices take their time, each operation its own.
    world.hooks.before = () =>
      world.random.chance(0.5) ? new Promise((resolve) => setImmediate(resolve)) : undefined;
    let isOver = false;
    const works = [
      (async () => {
        for (let round = 0; round < 8; round++) {
          await world.snapshot();
          await world.writeRandomly(30);
          if (world.volume.snapshots.length > 4)
            await world.volume.snapshots[world.random.below(5)]?.delete();
        }
        isOver = true;
      })(),
    ];
    let checks = 0;
    for (; !isOver || checks === 0; checks++) {
      expect(await checkServedVolume(world.volume, { scrub: checks % 2 === 0 })).toEqual([]);
    }
    await Promise.all(works);
    expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
    expect(checks).toBeGreaterThan(3);
    world.hooks.before = () => undefined;
    await world.expectRight();
    await world.volume.close();
  });
});

describe.each(LAYOUTS)('what is damaged is found (%s)', (layout: Layout) => {
  /** Three snapshots, with copies in each. */
  async function populated(): Promise<World> {
    const world = await World.create({ layout, seed: 'damaged' });
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      for (let block = 0; block < 8; block++) await world.writeBlock(block);
    }
    expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
    return world;
  }

  test.each([
    ['the oldest snapshot', 0],
    ['the newest snapshot', 2],
  ])('an entry in the table of %s', async (_, age) => {
    const world = await populated();
    const area = areaOf(world, age);
    await flip(area, area.item.tableOffset + 128 + 3 * 32);
    expect(await codes(world)).toEqual([
      { code: 'snapshot-damaged', snapshot: world.volume.snapshots[age]?.id },
    ]);
  });

  test('a location list', async () => {
    const world = await populated();
    const area = areaOf(world, 1);
    await flip(area, area.item.locationOffset + 130);
    expect(await codes(world)).toEqual([
      { code: 'snapshot-damaged', snapshot: world.volume.snapshots[1]?.id },
    ]);
  });

  test('a copy, by reading all of them', async () => {
    const world = await populated();
    const area = areaOf(world, 2);
    await flip(area, area.file.runs.locate(offsetOfSlot(area.table.slotOf(5))) + 1000);
    expect(await codes(world)).toEqual([]);
    expect(await codes(world, true)).toEqual([{ code: 'checksum', snapshot: world.volume.snapshots[2]?.id }]);
  });

  test('a control file that does not hold what was written', async () => {
    const world = await populated();
    const { engine } = world.volume.parts.writer ?? {};
    const { entries } = engine?.store.control ?? { entries: [] };
    const before = await controlBytes(world);
    await world.volume.deleteOldest();
    expect(entries).toHaveLength(3);
    await restoreControl(world, before);
    expect(await codes(world)).toEqual([{ code: 'catalog', snapshot: undefined }]);
  });

  /** All bytes of what holds the control file, as they are now. */
  async function controlBytes(world: World): Promise<Uint8Array> {
    const device = await controlDevice(world);
    const bytes = new Uint8Array(Math.min(device.size, 16 * MEBIBYTE));
    await device.read(0, bytes);
    return bytes;
  }

  async function restoreControl(world: World, bytes: Uint8Array): Promise<void> {
    await (await controlDevice(world)).write(0, bytes);
  }

  async function controlDevice(world: World) {
    if (layout === 'in-volume') return world.device();
    const [name = ''] = (await world.folder.list()).filter((each) => !each.includes('}{'));
    return world.folder.open(name, { writable: true });
  }
});

test('a volume that is open for reading only is not its business', async () => {
  const world = await World.create();
  await world.reopen({ readOnly: true });
  await expect(checkServedVolume(world.volume)).rejects.toMatchObject({ code: 'READ_ONLY' });
});

test('it can be given up', async () => {
  const world = await World.create();
  await world.snapshot();
  const signal = AbortSignal.abort();
  await expect(checkServedVolume(world.volume, { signal })).rejects.toThrow(/abort/i);
});
