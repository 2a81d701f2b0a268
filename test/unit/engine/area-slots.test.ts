/** The slots of a diff-area file while its length changes. */
import { expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { AreaSlots, FixedSlot, type RecordChange } from '../../../src/diff-area/area-slots.ts';
import { DeviceError } from '../../../src/errors.ts';
import { LOCATIONS_PER_BLOCK } from '../../../src/format/constants.ts';
import { CONTROL_BLOCKS } from '../../../src/store/control-file.ts';
import { readLocationList, writeLocationList } from '../../../src/store/location-list.ts';
import { Runs } from '../../../src/store/runs.ts';
import type { AreaFile } from '../../../src/store/store.ts';
import { BLOCK_SIZE, offsetOfSlot } from '../../../src/units.ts';
import { type Operation, settle, systemFailure } from './hooks.ts';
import { LAYOUTS, World } from './world.ts';

const SLOTS = 12;
const ONE_RUN = new Runs([{ volumeOffset: 0, fileOffset: 0, length: SLOTS * BLOCK_SIZE }]);

/** A file on a device of so many blocks, the last of which it gets if it grows. */
const fileOf = (blocks: number, runs: Runs): AreaFile => ({
  device: new MemoryDevice(blocks * BLOCK_SIZE),
  runs: new Runs(runs.list),
  take: async (length) => [{ volumeOffset: blocks * BLOCK_SIZE - length, length }],
  establish: async () => undefined,
  giveBack: async () => undefined,
  close: async () => undefined,
  remove: async () => undefined,
});

test('slots that an undecided trim is to bring back are not freed by a cut meanwhile', async () => {
  const file = fileOf(SLOTS, ONE_RUN);
  const slots = new AreaSlots(file, 1n, [{ start: 8, length: 4 }], [FixedSlot.location]);
  let isFailing = true;
  const record: RecordChange = async () => {
    if (isFailing) throw new DeviceError('the control file fails');
  };
  // Neither the shorter list nor the old one can be put in force: slots 9 to 11 are in doubt.
  await expect(slots.trim(record)).rejects.toThrow(DeviceError);
  await expect(slots.freeFrom(6, record)).rejects.toThrow(DeviceError);
  expect(slots.freeBytes).toBe(BLOCK_SIZE);
  isFailing = false;
  await slots.freeFrom(6, record);
  expect(slots.freeBytes).toBe(6 * BLOCK_SIZE);
  await slots.trim(record);
  expect([slots.length, slots.freeBytes]).toEqual([7 * BLOCK_SIZE, BLOCK_SIZE]);
});

test.each(LAYOUTS)('what a growth in doubt took is free when the snapshot has gone (%s)', async (layout) => {
  const world = await World.create({ layout });
  await world.snapshot();
  const end = world.size + CONTROL_BLOCKS * BLOCK_SIZE;
  const isOfControlFile = ({ target, offset }: Operation) =>
    layout === 'directory' ? /\/\{[^{]*$/.test(target) : offset >= world.size && offset < end;
  world.hooks.before = (operation) => {
    if (operation.kind === 'write' && isOfControlFile(operation)) throw systemFailure('EIO');
    return undefined;
  };
  // Nobody knows which of two location lists counts, and the volume is not written over what has no copy.
  await expect(world.volume.write(0, new Uint8Array(60 * BLOCK_SIZE).fill(1))).rejects.toThrow('EIO');
  world.hooks.before = () => undefined;
  await world.volume.deleteOldest();
  await world.volume.settled();
  await settle();
  expect(world.volume.figures.allocatedBytes).toBe(0);
});

test('a trim leaves what is spoken for', async () => {
  const slots = new AreaSlots(fileOf(SLOTS, ONE_RUN), 1n, [{ start: 7, length: 5 }], [FixedSlot.location]);
  slots.spokenFor = 3;
  await slots.trim(async () => undefined);
  expect(slots.length).toBe(10 * BLOCK_SIZE);
  expect(slots.takeSpokenFor(3)).toEqual([7, 8, 9]);
});

test('the list in force stays as it is until the next one is, whatever takes slots meanwhile', async () => {
  // So many that their list goes on in a second block.
  const count = LOCATIONS_PER_BLOCK + 1;
  const runs = new Runs(
    Array.from({ length: count }, (_, at) => ({
      volumeOffset: 2 * at * BLOCK_SIZE,
      fileOffset: at * BLOCK_SIZE,
      length: BLOCK_SIZE,
    })),
  );
  const file = fileOf(2 * count + 2, runs);
  const listSlots = [FixedSlot.location, 10];
  await writeLocationList(file.device, 1n, runs, listSlots.map(offsetOfSlot));
  const slots = new AreaSlots(file, 1n, [{ start: 20, length: 30 }], listSlots);
  slots.spokenFor = 0;
  const inForce = runs.locate(offsetOfSlot(slots.listSlot));
  await slots.grow(BLOCK_SIZE, async ({ locationOffset }) => {
    const taken = slots.take(slots.freeBytes / BLOCK_SIZE) ?? [];
    expect(taken.length).toBeGreaterThan(0);
    for (const slot of taken)
      await file.device.write(file.runs.locate(offsetOfSlot(slot)), new Uint8Array(BLOCK_SIZE).fill(0xee));
    // A crash leaves the one or the other.
    expect((await readLocationList(file.device, inForce)).runs.list).toHaveLength(count);
    expect((await readLocationList(file.device, locationOffset)).runs.list).toHaveLength(count + 1);
  });
  expect(slots.freeBytes).toBe(BLOCK_SIZE);
});
