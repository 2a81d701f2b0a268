/** Snapshot sets, the applications that take part in them, and what becomes of members after a crash. */
import { describe, expect, test, vi } from 'vitest';
import {
  DeviceError,
  HoldTimeoutError,
  InvalidArgumentError,
  WriterFailedError,
} from '../../../src/errors.ts';
import type { FreeSpaceProvider } from '../../../src/filesystem/free-space.ts';
import { SnapshotState } from '../../../src/format/control-block.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import type { SnapshotWriter } from '../../../src/snapshot/writers.ts';
import type { SetOutcome } from '../../../src/store/set-records.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { setOutcomeIn } from '../../../src/volume/set-outcome.ts';
import { createSnapshotSet } from '../../../src/volume/snapshot-set.ts';
import { LAYOUTS, World } from './world.ts';

const two = async (layout: (typeof LAYOUTS)[number]) =>
  [
    await World.create({ layout, seed: 'first', size: 20 * BLOCK_SIZE }),
    await World.create({ layout, seed: 'second', size: 12 * BLOCK_SIZE }),
  ] as const;

async function expectBytes(snapshot: Snapshot | undefined, wanted: Uint8Array | undefined): Promise<void> {
  if (snapshot === undefined || wanted === undefined) throw new Error('nothing to compare');
  expect(Buffer.compare(await snapshot.read(0, snapshot.size), wanted)).toBe(0);
}

/** An application that writes down what it is told. */
function writerOf(
  name: string,
  more: Partial<SnapshotWriter> = {},
): { writer: SnapshotWriter; told: string[] } {
  const told: string[] = [];
  const note = (phase: 'prepare' | 'freeze' | 'thaw' | 'postSnapshot' | 'abort') => ({
    [phase]: (call: Parameters<NonNullable<SnapshotWriter['prepare']>>[0]) => {
      told.push(phase);
      return more[phase]?.(call);
    },
  });
  const { limits } = more;
  const writer: SnapshotWriter = {
    name,
    ...note('prepare'),
    ...note('freeze'),
    ...note('thaw'),
    ...note('postSnapshot'),
    ...note('abort'),
    ...(limits === undefined ? {} : { limits }),
  };
  return { writer, told };
}

describe.each(LAYOUTS)('a snapshot set (%s)', (layout) => {
  test('has one id, one label and the bytes of all volumes', async () => {
    const [first, second] = await two(layout);
    const before = [await first.volume.read(0, first.size), await second.volume.read(0, second.size)];
    const set = await createSnapshotSet([second.volume, first.volume], { label: 'both' });
    await first.volume.write(0, new Uint8Array(first.size).fill(1));
    await second.volume.write(0, new Uint8Array(second.size).fill(2));
    expect(set.snapshots.map(({ setId, label, inSet }) => [setId, label, inSet])).toEqual([
      [set.id, 'both', true],
      [set.id, 'both', true],
    ]);
    await expectBytes(set.snapshots[0], before[1]);
    await expectBytes(set.snapshots[1], before[0]);
    expect(set.snapshots.every(({ state }) => state === 'ok')).toBe(true);
    // Nothing is left of the protocol once all members count.
    for (const { volume } of [first, second])
      for (const { diffArea } of volume.parts.writer?.engine.store.control.entries ?? [])
        expect(diffArea.state).toBe(0);
  });

  test('leaves out what nothing uses of each volume, and is shown when that is known of all', async () => {
    const [first, second] = await two(layout);
    const seen: number[] = [];
    const provider: FreeSpaceProvider = {
      name: 'test',
      async unusedBlocks(source, size) {
        await source.read(0, new Uint8Array(512));
        // Writes go on, and nobody sees a part of the set.
        await first.volume.write(5 * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE).fill(9));
        seen.push(first.volume.snapshots.length + second.volume.snapshots.length);
        return { unused: new Uint8Array(Math.ceil(size / BLOCK_SIZE / 8)).fill(0b110, 0, 1) };
      },
    };
    const set = await createSnapshotSet([first.volume, second.volume], { unusedSpace: provider });
    expect(seen).toEqual([0, 0]);
    expect(set.snapshots.map(({ unusedBytes }) => unusedBytes)).toEqual([2 * BLOCK_SIZE, 2 * BLOCK_SIZE]);
    for (const { volume } of [first, second]) {
      await volume.write(0, new Uint8Array(volume.size).fill(1));
      expect(volume.snapshots).toHaveLength(1);
      const skipped = await volume.snapshots[0]?.read(BLOCK_SIZE, 2 * BLOCK_SIZE);
      expect(skipped?.every((byte) => byte === 0)).toBe(true);
    }
  });

  test('is shown to nobody if it cannot be told of one of them what it leaves out', async () => {
    const [first, second] = await two(layout);
    const control = second.volume.parts.writer?.engine.store.control;
    if (control === undefined) throw new Error('not open for writing');
    const update = vi.spyOn(control, 'update').mockRejectedValue(new DeviceError('the store failed'));
    const { writer, told } = writerOf('database');
    const unused = async (_: unknown, size: number) => ({
      unused: new Uint8Array(Math.ceil(size / BLOCK_SIZE / 8)),
    });
    const options = { writers: [writer], unusedSpace: { name: 'test', unusedBlocks: unused } };
    await expect(createSnapshotSet([first.volume, second.volume], options)).rejects.toThrow(
      'the store failed',
    );
    expect(told).toEqual(['prepare', 'freeze', 'thaw', 'abort']);
    expect([...first.volume.snapshots, ...second.volume.snapshots]).toEqual([]);
    update.mockRestore();
    await first.reopen();
    await second.reopen();
    expect(first.volume.snapshots[0]?.setId).toBe(second.volume.snapshots[0]?.setId);
  });

  test('of the same volumes in another order waits for the first one', async () => {
    const [first, second] = await two(layout);
    const sets = await Promise.all([
      createSnapshotSet([first.volume, second.volume]),
      createSnapshotSet([second.volume, first.volume]),
      first.volume.createSnapshot(),
    ]);
    expect(new Set(sets.map((set) => ('id' in set ? set.id : ''))).size).toBe(3);
    expect(first.volume.snapshots).toHaveLength(3);
    expect(second.volume.snapshots).toHaveLength(2);
  });

  test('leaves nothing behind on any volume when one of them fails', async () => {
    const [first, second] = await two(layout);
    const figures = () => [first, second].map(({ volume }) => volume.figures.allocatedBytes);
    const before = figures();
    await second.volume.createSnapshot();
    await second.volume.close();
    await expect(createSnapshotSet([first.volume, second.volume])).rejects.toThrow('closed');
    expect(first.volume.snapshots).toEqual([]);
    expect(first.volume.figures.allocatedBytes).toBe(before[0]);
    await first.volume.write(0, new Uint8Array(BLOCK_SIZE));
  });
});

test('a member that was published while another volume could not be flushed in time is gone', async () => {
  const [first, second] = await two('directory');
  let flushes = 0;
  let wasPublished = false;
  // Two while it is prepared, one when all are, one with writes held.
  first.hooks.before = ({ target, kind }) =>
    target === 'volume' && kind === 'flush' && ++flushes >= 4 ? new Promise(() => undefined) : undefined;
  second.hooks.before = ({ target, kind }) => {
    if (kind === 'write' && target !== 'volume' && flushes >= 4) wasPublished = true;
    return undefined;
  };
  await expect(createSnapshotSet([first.volume, second.volume], { holdTimeoutMs: 50 })).rejects.toThrow(
    HoldTimeoutError,
  );
  expect(wasPublished).toBe(true);
  await second.volume.write(0, new Uint8Array(BLOCK_SIZE).fill(7));
  await second.reopen();
  expect(second.volume.snapshots).toEqual([]);
});

test('a set is of different volumes, and of at least one', async () => {
  const [first] = await two('directory');
  await expect(createSnapshotSet([])).rejects.toThrow(InvalidArgumentError);
  await expect(createSnapshotSet([first.volume, first.volume])).rejects.toThrow(InvalidArgumentError);
});

describe('writers', () => {
  test('are prepared, frozen, thawed and told, in this order', async () => {
    const [first, second] = await two('directory');
    const { writer, told } = writerOf('database', {
      freeze: () => expect(first.volume.snapshots).toHaveLength(0),
      thaw: () => expect(first.volume.snapshots).toHaveLength(1),
    });
    const set = await createSnapshotSet([first.volume, second.volume], { writers: [writer] });
    expect(told).toEqual(['prepare', 'freeze', 'thaw', 'postSnapshot']);
    expect(set.writerFailures).toEqual([]);
  });

  test.each(['prepare', 'freeze'] as const)(
    'one that fails in %s fails the set, and all are told',
    async (phase) => {
      const [first, second] = await two('directory');
      const good = writerOf('good');
      const bad = writerOf('bad', {
        [phase]: () => {
          throw new Error('no');
        },
      });
      const failed = createSnapshotSet([first.volume, second.volume], { writers: [good.writer, bad.writer] });
      await expect(failed).rejects.toThrow(WriterFailedError);
      await expect(failed).rejects.toMatchObject({ writer: 'bad', phase });
      expect(good.told.at(-1)).toBe('abort');
      expect(bad.told.at(-1)).toBe('abort');
      expect(first.volume.snapshots).toEqual([]);
      await first.volume.write(0, new Uint8Array(BLOCK_SIZE));
    },
  );

  test('one that hangs holds nobody up beyond its limit', async () => {
    const [first] = await two('directory');
    let reason: unknown;
    const hang = (call: { readonly signal: AbortSignal }) =>
      new Promise<void>(() => {
        call.signal.addEventListener('abort', () => {
          reason = call.signal.reason;
        });
      });
    const { writer } = writerOf('slow', { freeze: hang, limits: { freeze: 5 } });
    await expect(createSnapshotSet([first.volume], { writers: [writer] })).rejects.toThrow(WriterFailedError);
    expect(reason).toBeInstanceOf(WriterFailedError);
    const after = writerOf('slow', { thaw: hang, limits: { thaw: 5 } });
    const set = await createSnapshotSet([first.volume], { writers: [after.writer] });
    expect(set.writerFailures).toMatchObject([{ writer: 'slow', phase: 'thaw' }]);
    expect(first.volume.snapshots).toHaveLength(1);
  });
});

describe.each(LAYOUTS)('a pending member (%s)', (layout) => {
  /** Two volumes whose set was cut off before (`aborted`) or after its commit record. */
  async function cutOff(isCommitted: boolean) {
    const [first, second] = await two(layout);
    const set = await createSnapshotSet([first.volume, second.volume], { label: 'cut off' });
    const [record, member] = set.snapshots;
    const controlOf = ({ volume }: World) => {
      const control = volume.parts.writer?.engine.store.control;
      if (control === undefined) throw new Error('not open for writing');
      return control;
    };
    await controlOf(second).setState(member?.storeId ?? '', { set: SnapshotState.setPending });
    const { setRecord } = SnapshotState;
    if (isCommitted) await controlOf(first).setState(record?.storeId ?? '', { set: setRecord });
    else await controlOf(first).withdraw(record?.storeId ?? '');
    return { first, second, member: member?.id ?? '', controlOf };
  }

  const reopen = (world: World, outcome: SetOutcome) => world.reopen({ onUndecidedSet: async () => outcome });

  test('stays, and says so, while its coordinator cannot be asked', async () => {
    const { second, member } = await cutOff(true);
    await reopen(second, 'unknown');
    expect(second.volume.snapshots).toMatchObject([{ id: member, state: 'pending' }]);
    expect(second.volume.recovery.warnings.join()).toContain('pending');
    await reopen(second, 'committed');
    expect(second.volume.snapshots).toMatchObject([{ id: member, state: 'ok' }]);
    await reopen(second, 'unknown');
    expect(second.volume.snapshots).toMatchObject([{ id: member, state: 'ok' }]);
  });

  test('goes when its set was never completed', async () => {
    const { second, member } = await cutOff(false);
    await reopen(second, 'aborted');
    expect(second.volume.snapshots).toEqual([]);
    expect(second.volume.recovery.droppedSnapshots).toEqual([{ id: member, reason: 'set-aborted' }]);
  });

  test('is merged if older ones read through it when it turns out that its set was never completed', async () => {
    const [first, second] = await two(layout);
    await second.snapshot();
    await second.writeBlock(3);
    const set = await createSnapshotSet([first.volume, second.volume]);
    const id = set.snapshots[1]?.id ?? '';
    const control = first.volume.parts.writer?.engine.store.control;
    await second.volume.parts.writer?.engine.store.control.setState(id, { set: SnapshotState.setPending });
    await control?.withdraw(set.snapshots[0]?.id ?? '');
    await reopen(second, 'unknown');
    await second.writeBlock(4);
    await second.snapshot();
    await second.writeBlock(5);
    await reopen(second, 'aborted');
    expect(second.volume.recovery.droppedSnapshots).toEqual([{ id, reason: 'set-aborted' }]);
    expect(second.volume.snapshots).toHaveLength(2);
    await second.volume.settled();
    await second.expectRight();
    await reopen(second, 'unknown');
    expect(second.volume.recovery).toMatchObject({ droppedSnapshots: [], warnings: [] });
    await second.expectRight();
  });

  test('is decided as the opener says, if it cannot be found out', async () => {
    const { second } = await cutOff(true);
    await second.reopen({ onUndecidedSet: 'keep' });
    // The coordinator is open in this process, so it could be asked.
    expect(second.volume.snapshots).toMatchObject([{ state: 'ok' }]);
  });

  test('counts although the record of its set was deleted', async () => {
    const { first, controlOf } = await cutOff(true);
    const [record] = first.volume.snapshots;
    await first.volume.deleteOldest();
    expect(await controlOf(first).outcomeOf(record?.storeId ?? '')).toBe('committed');
    await first.reopen();
    expect(await controlOf(first).outcomeOf(record?.storeId ?? '')).toBe('committed');
    expect(await controlOf(first).outcomeOf('00000000-0000-0000-0000-000000000001')).toBe('aborted');
  });

  test('cannot be told about once too many records were deleted', async () => {
    const { first, controlOf } = await cutOff(true);
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) {
      const { storeId } = await first.volume.createSnapshot();
      ids.push(storeId);
      await controlOf(first).setState(storeId, { set: SnapshotState.setRecord });
    }
    await first.volume.deleteOldest(11);
    expect(await controlOf(first).outcomeOf(ids[9] ?? '')).toBe('committed');
    expect(await controlOf(first).outcomeOf(ids[0] ?? '')).toBe('unknown');
  });
});

test('a record is not looked for in the store of another volume', async () => {
  const world = await World.create({ layout: 'in-volume' });
  await world.volume.close();
  const coordinator = {
    volumeId: '00000000-0000-0000-0000-000000000009',
    recordId: '',
    volume: '',
    store: '',
  };
  const { InVolumeStore } = await import('../../../src/store/in-volume-store.ts');
  expect(await setOutcomeIn(world.device(), new InVolumeStore(), coordinator)).toBe('unknown');
});
