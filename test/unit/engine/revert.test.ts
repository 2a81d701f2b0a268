/** Putting a volume back to a snapshot. */
import { describe, expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { NoSpaceError, RevertInProgressError, SnapshotDeletedError } from '../../../src/errors.ts';
import { START_BLOCK_OFFSET } from '../../../src/format/constants.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { type Operation, settle, systemFailure } from './hooks.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World, type WorldOptions } from './world.ts';

const MODES = ['ordered', 'writeback'] as const;
const CASES = LAYOUTS.flatMap((layout) => MODES.map((mode) => ({ layout, mode })));

/** Three snapshots with writes between and after them. */
async function worldWithPast(options: WorldOptions, mode: (typeof MODES)[number]) {
  const world = await World.create({ size: MEBIBYTE + 4321, ...options });
  world.options = { writeMode: mode };
  await world.reopen();
  const snapshots: string[] = [];
  for (let i = 0; i < 3; i++) {
    snapshots.push((await world.snapshot({ label: `s${i}` })).id);
    await world.writeRandomly(12);
  }
  await world.volume.flush();
  return { world, snapshots };
}

const named = (world: World, label: string): Snapshot => {
  const found = world.volume.snapshots.find((snapshot) => snapshot.label === label);
  if (found === undefined) throw new Error(`no snapshot ${label}`);
  return found;
};

/** Lets the model follow a revert that has begun. */
function modelReverted(world: World, target: Snapshot): void {
  const previous = world.volume.snapshots.at(-1);
  if (previous === undefined) throw new Error('no snapshot was taken');
  world.model.snapshots.set(previous.id, world.model.bytes.slice());
  world.model.bytes.set(world.model.of(target.id));
}

/** Lets nothing be put back until it is called. */
function pausePutBack(world: World): () => void {
  const background = world.volume.parts.writer?.engine.pools.background;
  background?.pause();
  return () => background?.start();
}

/** Is it a write of the volume itself? In-volume the store is on the same device. */
const ofVolume = ({ size }: World, { target, kind, offset }: Operation): boolean =>
  target === 'volume' && kind === 'write' && offset < size && offset !== START_BLOCK_OFFSET;

async function expectSound(world: World): Promise<void> {
  const problems = await checkVolume(world.device({ writable: false }), {
    store: world.store(),
    scrub: true,
  });
  expect(problems).toEqual([]);
}

describe.each(CASES)('a revert ($layout, $mode)', ({ layout, mode }) => {
  test('puts the volume back, keeps what was before, and all snapshots stay right', async () => {
    const { world } = await worldWithPast({ layout }, mode);
    const target = named(world, 's1');
    const revert = world.volume.revert(target);
    await revert.begun;
    modelReverted(world, target);
    await world.expectRight();
    expect(await revert.completed).toBe('reverted');
    await world.expectRight();
    expect(world.volume.figures.revert).toBeUndefined();
    expect(world.volume.snapshots.map(({ label }) => label)).toEqual([
      's0',
      's1',
      's2',
      'before the revert to “s1”',
    ]);
    await world.snapshot();
    await world.writeRandomly(20);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    await world.volume.close();
    await expectSound(world);
  });

  test('is usable at once: reads, writes and discards before anything was put back', async () => {
    const { world } = await worldWithPast({ layout }, mode);
    const target = named(world, 's0');
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(target);
    await revert.begun;
    modelReverted(world, target);
    expect(world.volume.figures.revert).toMatchObject({ targetId: target.id, phase: 'reverting' });
    for (let i = 0; i < 40; i++) {
      const offset = world.random.below(world.size - 700);
      await world.write(offset, world.random.fill(new Uint8Array(1 + world.random.below(700))));
    }
    await world.expectRight();
    goOn();
    await world.expectRight();
    await revert.completed;
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
  });

  test('goes on after the process was killed, also read-only meanwhile', async () => {
    for (let round = 0; round < 6; round++) {
      const { world } = await worldWithPast({ layout, seed: `killed ${round}` }, mode);
      const target = named(world, 's0');
      let writes = 0;
      world.hooks.before = (operation) => {
        if (ofVolume(world, operation) && writes++ >= round) return new Promise(() => undefined);
        return undefined;
      };
      const revert = world.volume.revert(target);
      await revert.begun;
      modelReverted(world, target);
      await settle();
      await world.kill({ readOnly: true });
      await world.expectRight();
      await world.kill();
      await world.expectRight();
      await world.writeRandomly(10);
      await world.volume.flush();
      await world.kill();
      await world.expectRight();
      if (world.volume.figures.revert !== undefined) await world.volume.revert(named(world, 's0')).completed;
      await world.expectRight();
      await world.volume.close();
      await expectSound(world);
    }
  });

  test('can be cancelled, and undone afterwards', async () => {
    const { world } = await worldWithPast({ layout }, mode);
    const before = world.model.bytes.slice();
    const target = named(world, 's0');
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(target);
    await revert.begun;
    modelReverted(world, target);
    await world.writeRandomly(10);
    const cancelled = revert.cancel();
    await settle();
    goOn();
    await cancelled;
    world.model.bytes.set(before);
    await world.expectRight();
    await world.writeRandomly(5);
    expect(await revert.completed).toBe('cancelled');
    await world.expectRight();
    const again = world.volume.revert(named(world, 's1'), { label: 'undo' });
    await again.begun;
    const now = world.model.bytes.slice();
    modelReverted(world, named(world, 's1'));
    await again.completed;
    const undo = world.volume.revert(named(world, 'undo'));
    await undo.begun;
    modelReverted(world, named(world, 'undo'));
    await undo.completed;
    expectSame(await world.volume.read(0, world.size), now, 'the volume after the undo');
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
  });

  test('a cancelled one goes on being cancelled after a kill, and keeps what is written meanwhile', async () => {
    for (let round = 0; round < 4; round++) {
      const { world } = await worldWithPast({ layout, seed: `cancelled ${round}` }, mode);
      const before = world.model.bytes.slice();
      const target = named(world, 's0');
      const goOn = pausePutBack(world);
      const revert = world.volume.revert(target);
      await revert.begun;
      modelReverted(world, target);
      const cancelled = revert.cancel();
      await settle();
      goOn();
      await cancelled;
      world.model.bytes.set(before);
      let writes = 0;
      world.hooks.before = (operation) => {
        if (ofVolume(world, operation) && writes++ >= round) return new Promise(() => undefined);
        return undefined;
      };
      await settle();
      await world.kill();
      await world.expectRight();
      await world.writeRandomly(10);
      await world.volume.flush();
      await world.kill();
      await world.expectRight();
      await settle();
      await world.reopen();
      await world.expectRight();
    }
  });

  test('no snapshot is taken or deleted meanwhile, and none but the same revert begins', async () => {
    const { world } = await worldWithPast({ layout }, mode);
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(named(world, 's1'));
    await revert.begun;
    await expect(world.volume.createSnapshot()).rejects.toThrow(RevertInProgressError);
    await expect(world.volume.deleteOldest(2)).rejects.toThrow(RevertInProgressError);
    await expect(world.volume.revert(named(world, 's2')).begun).rejects.toMatchObject({
      code: 'REVERT_IN_PROGRESS',
    });
    await world.volume.deleteOldest();
    await world.volume.revert(named(world, 's1')).begun;
    goOn();
    await revert.completed;
    expect(world.volume.snapshots).toHaveLength(3);
    await world.volume.createSnapshot();
  });
});

describe('a revert in trouble', () => {
  test('rests when there is no room for copies, keeps the volume right, and goes on with more', async () => {
    const { world } = await worldWithPast({ maximumSize: 140 * BLOCK_SIZE }, 'ordered');
    await world.writeBlock(0, 60);
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(named(world, 's0'));
    await revert.begun;
    modelReverted(world, named(world, 's0'));
    await world.volume.setMaximumSize(1);
    expect(world.volume.snapshots).toHaveLength(4);
    goOn();
    await expect(revert.completed).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect(world.volume.figures.revert?.problem).toMatch(/resize-store/);
    await world.expectRight();
    await world.volume.setMaximumSize(0);
    expect(await world.volume.reverting?.completed).toBe('reverted');
    await world.expectRight();
  });

  test('can be cancelled when there is no room at all', async () => {
    const { world } = await worldWithPast({}, 'ordered');
    const before = world.model.bytes.slice();
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(named(world, 's0'));
    await revert.begun;
    modelReverted(world, named(world, 's0'));
    await world.volume.setMaximumSize(1);
    goOn();
    await revert.completed.catch(() => undefined);
    await world.volume.reverting?.cancel();
    world.model.bytes.set(before);
    expect(await world.volume.reverting?.completed).toBe('cancelled');
    await world.expectRight();
  });

  test('tells what is known to be zero, and what has changed, as users see it', async () => {
    const world = await World.create({ filled: false });
    const old = await world.snapshot({ label: 'old' });
    await world.writeBlock(3, 2);
    const newer = await world.snapshot({ label: 'newer' });
    await world.writeBlock(9);
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(old);
    await revert.begun;
    modelReverted(world, old);
    let at = 0;
    for await (const { length, zero } of world.volume.allocation(0, world.size)) {
      if (zero) expect(world.model.bytes.subarray(at, at + length).every((byte) => byte === 0)).toBe(true);
      at += length;
    }
    expect(at).toBe(world.size);
    const changed: number[] = [];
    for await (const { offset, length } of world.volume.changedBlocks({ since: newer }))
      for (let each = offset; each < offset + length; each += BLOCK_SIZE) changed.push(each / BLOCK_SIZE);
    expect(changed).toEqual([3, 4, 9]);
    await world.volume.discard(3 * BLOCK_SIZE + 100, 40);
    await world.expectRight();
    goOn();
    await revert.completed;
    await world.expectRight();
  });
});

describe.each(LAYOUTS)('a revert and deletion (%s)', (layout) => {
  test('neither the target nor anything newer goes meanwhile, in whatever way; older ones do', async () => {
    const { world } = await worldWithPast({ layout }, 'ordered');
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(named(world, 's1'));
    await revert.begun;
    modelReverted(world, named(world, 's1'));
    const previous = world.volume.snapshots.at(-1);
    for (const snapshot of [named(world, 's1'), named(world, 's2'), previous])
      await expect(snapshot?.delete()).rejects.toThrow(RevertInProgressError);
    await expect(world.volume.deleteOldest(2)).rejects.toThrow(RevertInProgressError);
    expect(world.volume.snapshots).toHaveLength(4);
    await named(world, 's0').delete();
    expect(world.volume.snapshots).toHaveLength(3);
    await world.expectRight();
    goOn();
    await revert.completed;
    await named(world, 's2').delete({ wait: true });
    await world.expectRight();
    await world.volume.close();
    await expectSound(world);
  });

  test('what was deleted before is merged meanwhile, through kills; it cannot be a target', async () => {
    for (let round = 0; round < 3; round++) {
      const { world } = await worldWithPast({ layout, seed: `merged meanwhile ${round}` }, 'ordered');
      const target = named(world, 's0');
      const deleted = [named(world, 's1'), named(world, 's2')];
      pausePutBack(world);
      for (const snapshot of deleted) await snapshot.delete();
      await expect(world.volume.revert(deleted[0] ?? target).begun).rejects.toThrow(SnapshotDeletedError);
      const began = world.volume.revert(target).begun;
      await began;
      modelReverted(world, target);
      expect(world.volume.figures.deletion.snapshots).toBe(2);
      await world.writeRandomly(round * 3);
      await world.kill();
      let writes = 0;
      world.hooks.before = ({ kind }) =>
        kind === 'write' && writes++ >= 10 * round ? new Promise(() => undefined) : undefined;
      if (round === 0) world.hooks.before = () => undefined;
      void world.volume.settled().catch(() => undefined);
      await settle();
      world.hooks.before = () => undefined;
      await world.kill();
      await world.volume.reverting?.completed;
      await world.volume.settled();
      expect(world.volume.figures.deletion.snapshots).toBe(0);
      await world.expectRight();
      await world.volume.close();
      await expectSound(world);
    }
  });

  test('the state before goes too, if nobody wants it: done, cancelled, or after a kill', {
    timeout: 20_000,
  }, async () => {
    const { world } = await worldWithPast({ layout }, 'ordered');
    const labels = () => world.volume.snapshots.map(({ label }) => label);
    const revert = world.volume.revert(named(world, 's1'), { keepPrevious: false });
    await revert.begun;
    modelReverted(world, named(world, 's1'));
    await revert.completed;
    expect(labels()).toEqual(['s0', 's1', 's2']);
    await world.volume.settled();
    await world.expectRight();
    await world.writeRandomly(10);

    const goOn = pausePutBack(world);
    const cancelled = world.volume.revert(named(world, 's0'), { keepPrevious: false });
    await cancelled.begun;
    const cancelling = cancelled.cancel();
    await settle();
    goOn();
    await cancelling;
    expect(await cancelled.completed).toBe('cancelled');
    expect(labels()).toEqual(['s0', 's1', 's2']);
    await world.expectRight();

    const killed = world.volume.revert(named(world, 's0'), { keepPrevious: false, label: 'unwanted' });
    killed.completed.catch(() => undefined);
    await killed.begun;
    modelReverted(world, named(world, 's0'));
    await new Promise<void>((resolve) => {
      // The flag of the target is gone by then, and the deletion is not written.
      world.volume.once('deleting', () => {
        world.hooks.before = ({ kind }) => (kind === 'write' ? new Promise(() => undefined) : undefined);
        resolve();
      });
    });
    await settle();
    world.hooks.before = () => undefined;
    const readOnly = await world.open({ readOnly: true }, world.device({ writable: false }));
    expect(readOnly.snapshots.map(({ label }) => label)).toEqual(['s0', 's1', 's2', 'unwanted']);
    expect(readOnly.figures.revert).toBeUndefined();
    await readOnly.close();
    await world.kill();
    expect(labels()).toEqual(['s0', 's1', 's2']);
    await world.volume.settled();
    await world.expectRight();
    await world.volume.close();
    await expectSound(world);
  });
});

describe('a revert and what failed', () => {
  const isArea = ({ target }: Operation) => target.startsWith('store/') && target.includes('}{');
  const isControl = ({ target }: Operation) => target.startsWith('store/') && !target.includes('}{');

  test('puts back what has a copy that could not be committed, and keeps what is written over that', async () => {
    const world = await World.create();
    const target = await world.snapshot();
    await world.writeBlock(5);
    await world.volume.setSpacePolicy('fail-writes');
    world.hooks.before = (operation) => {
      if (operation.kind === 'flush' && isArea(operation)) throw systemFailure('ENOSPC');
      return undefined;
    };
    await expect(world.writeBlock(3)).rejects.toThrow(NoSpaceError);
    world.hooks.before = () => undefined;
    const goOn = pausePutBack(world);
    await world.volume.revert(target).begun;
    modelReverted(world, target);
    await world.writeBlock(3);
    await world.volume.flush();
    goOn();
    await world.kill();
    await world.volume.reverting?.completed;
    await world.expectRight();
  });

  test('waits for no merge, which would have to wait for it', { timeout: 10_000 }, async () => {
    const world = await World.create({ size: 2 * MEBIBYTE });
    const held = await world.snapshot();
    await world.writeBlock(0, 20);
    await world.snapshot();
    await world.writeBlock(0, 20);
    const target = await world.snapshot();
    await world.writeBlock(0, 100);
    await held.hold();
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(target);
    await revert.begun;
    modelReverted(world, target);
    await world.volume.setMaximumSize(world.volume.figures.allocatedBytes);
    expect(world.volume.snapshots).toHaveLength(4);
    goOn();
    await expect(revert.completed).rejects.toMatchObject({ code: 'NO_SPACE' });
    await world.volume.setMaximumSize(0);
    await world.volume.reverting?.completed;
    await world.expectRight();
  });

  /** Fails to end after so many writes of the control file; after so many further ones the process is killed. @returns what was reached */
  async function endingBadly(good: number, further: number) {
    const world = await World.create({ size: 16 * BLOCK_SIZE });
    const target = await world.snapshot();
    await world.writeBlock(3);
    await world.snapshot();
    const goOn = pausePutBack(world);
    const revert = world.volume.revert(target, { keepPrevious: false });
    await revert.begun;
    world.model.bytes.set(world.model.of(target.id));
    let left = good;
    const stopping = (stop: () => undefined | Promise<void>) => (operation: Operation) =>
      operation.kind === 'write' && isControl(operation) && left-- <= 0 ? stop() : undefined;
    world.hooks.before = stopping(() => {
      throw systemFailure('EIO');
    });
    goOn();
    const hasFailed = await revert.completed.then(
      () => false,
      () => true,
    );
    left = Infinity;
    await world.writeBlock(3);
    await world.volume.flush();
    left = further;
    world.hooks.before = stopping(() => new Promise(() => undefined));
    void world.volume.settled().catch(() => undefined);
    await settle();
    const isKilled = left < 0;
    await world.kill();
    await world.volume.reverting?.completed;
    expectSame(await world.volume.read(0, world.size), world.model.bytes, `the volume, ${good}, ${further}`);
    return { hasFailed, isKilled };
  }

  test('ends before the state before it goes, wherever the control file fails and the process is killed', async () => {
    for (let good = 0, hasFailed = true; hasFailed; good++)
      for (let further = 0, isKilled = true; isKilled; further++)
        ({ hasFailed, isKilled } = await endingBadly(good, further));
  });

  test.each([0, 1])(
    'is cancelled for good also when its end may be durable though it failed (%i failures later)',
    async (later) => {
      const world = await World.create();
      const target = await world.snapshot();
      await world.writeBlock(3);
      await world.snapshot();
      const before = world.model.bytes.slice();
      const goOn = pausePutBack(world);
      const revert = world.volume.revert(target);
      await revert.begun;
      modelReverted(world, target);
      // What is written gets there; whether it has, cannot be told, and what was there before cannot be put back.
      let [left, isFlushFailing] = [Infinity, false];
      world.hooks.before = (operation) => {
        if (!isControl(operation) || left <= 0) return undefined;
        const wasFlushFailing = isFlushFailing;
        isFlushFailing = operation.kind === 'flush';
        if (!isFlushFailing && !wasFlushFailing) return undefined;
        left--;
        throw systemFailure('EIO');
      };
      goOn();
      await expect(revert.completed).rejects.toThrow('EIO');
      await world.expectRight();
      left = later;
      pausePutBack(world);
      const cancelling = world.volume.reverting?.cancel();
      if (later === 0) {
        await cancelling;
        world.model.bytes.set(before);
      } else await expect(cancelling).rejects.toThrow('EIO');
      await world.kill();
      await world.volume.reverting?.completed;
      await world.expectRight();
    },
  );
});
