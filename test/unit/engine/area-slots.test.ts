/** The slots of a diff-area file while the control file cannot be written. */
import { expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { AreaSlots, FixedSlot, type RecordChange } from '../../../src/diff-area/area-slots.ts';
import { DeviceError } from '../../../src/errors.ts';
import { CONTROL_BLOCKS } from '../../../src/store/control-file.ts';
import { Runs } from '../../../src/store/runs.ts';
import type { AreaFile } from '../../../src/store/store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { type Operation, settle, systemFailure } from './hooks.ts';
import { LAYOUTS, World } from './world.ts';

const SLOTS = 12;

test('slots that an undecided trim is to bring back are not freed by a cut meanwhile', async () => {
  const device = new MemoryDevice(SLOTS * BLOCK_SIZE);
  const runs = new Runs([{ volumeOffset: 0, fileOffset: 0, length: SLOTS * BLOCK_SIZE }]);
  const file: AreaFile = {
    device,
    runs,
    take: async () => [],
    establish: async () => undefined,
    giveBack: async () => undefined,
    close: async () => undefined,
    remove: async () => undefined,
  };
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
