/** Copying within the volume: snapshots stay right, and sources need no copies any more. */
import { describe, expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { checkServedVolume } from '../../../src/check/served.ts';
import type { DiffArea } from '../../../src/diff-area/diff-area.ts';
import { InvalidArgumentError, NoSpaceError } from '../../../src/errors.ts';
import type { FreeSpaceProvider } from '../../../src/filesystem/free-space.ts';
import type { CreateSnapshotOptions } from '../../../src/snapshot/create.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { settle, signal, systemFailure } from './hooks.ts';
import { LAYOUTS, World, type WorldOptions } from './world.ts';

/** Says that these blocks are unused. */
const freeing = (blocks: readonly number[]): FreeSpaceProvider => ({
  name: 'test',
  async unusedBlocks() {
    const unused = new Uint8Array(8);
    for (const block of blocks) unused[block >>> 3] = (unused[block >>> 3] ?? 0) | (1 << (block & 7));
    return { unused };
  },
});

const MODES = ['ordered', 'writeback'] as const;

describe.each(LAYOUTS.flatMap((layout) => MODES.map((writeMode) => ({ layout, writeMode }))))(
  'copying within the volume ($layout, $writeMode)',
  ({ layout, writeMode }) => {
    const create = async (options: WorldOptions = {}) => {
      const world = await World.create({ layout, seed: 'moves', size: 64 * BLOCK_SIZE, ...options });
      world.options = { writeMode };
      await world.reopen();
      return world;
    };

    async function copy(world: World, from: number, to: number, length: number): Promise<void> {
      await world.volume.copyRange(from, to, length);
      world.model.bytes.copyWithin(to, from, from + length);
    }
    const move = (world: World, from: number, to: number, count = 1) =>
      copy(world, from * BLOCK_SIZE, to * BLOCK_SIZE, count * BLOCK_SIZE);

    const areaOf = (world: World): DiffArea => {
      const area = world.volume.parts.writer?.engine.chain.newest?.area;
      if (area === undefined) throw new Error('no snapshot');
      return area;
    };
    const live = (world: World) => [...areaOf(world).moves.all()].sort((a, b) => a.from - b.from);

    async function expectSound(world: World): Promise<void> {
      await world.expectRight();
      expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
      await world.reopen();
      await world.expectRight();
    }

    test('without snapshots it only copies, whatever overlaps', async () => {
      const world = await create();
      for (const [from, to, length] of [
        [5, 1000, 70_000],
        [1000, 5, 70_000],
        [0, BLOCK_SIZE, 10 * BLOCK_SIZE],
        [3, 3, 100],
        [0, 0, 0],
      ] as const)
        await copy(world, from, to, length);
      await expectSound(world);
      await expect(world.volume.copyRange(0, world.size, 1)).rejects.toThrow(InvalidArgumentError);
      await world.volume.close();
    });

    test('a source that was moved is overwritten without a copy', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 40, 6);
      expect(live(world)).toHaveLength(6);
      const { usedBytes } = areaOf(world);
      await world.writeBlock(2, 6);
      await world.volume.flush();
      expect(areaOf(world).usedBytes).toBe(usedBytes);
      await expectSound(world);
      await world.volume.close();
    });

    test('a target that is overwritten is copied for its source', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 9);
      await world.writeBlock(2);
      await world.writeBlock(9);
      await world.volume.flush();
      expect(live(world)).toEqual([]);
      await expectSound(world);
      await world.writeBlock(9);
      await expectSound(world);
      await world.volume.close();
    });

    test('what is merged while content is copied brings copies of sources, which then do not move', async () => {
      const world = await create();
      await world.snapshot();
      await world.writeBlock(9);
      const deleted = await world.snapshot();
      await world.writeBlock(2);
      await world.volume.flush();
      const copied = signal();
      let settled: Promise<void> | undefined;
      world.hooks.before = ({ kind, target, offset, length }) => {
        if (kind !== 'write' || length !== BLOCK_SIZE) return undefined;
        // The merge waits until it is known that block 2 may move; its copy then, until the merge is over.
        if (target !== 'volume' || offset >= world.size)
          return settled === undefined ? copied.promise : undefined;
        if (offset !== 9 * BLOCK_SIZE) return undefined;
        settled = world.volume.settled();
        copied.fire();
        return settled;
      };
      await deleted.delete();
      await move(world, 2, 9);
      expect(settled).toBeDefined();
      expect(live(world)).toEqual([]);
      await world.writeBlock(9);
      await expectSound(world);
      await world.volume.close();
    });

    test('a newer snapshot does not skip what a block of an older one moved to', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 9);
      const unusedSpace = freeing([2, 3, 9, 10]);
      await world.writeBlock(10);
      const newer = await world.snapshot({ unusedSpace });
      expect(newer.unusedBytes).toBe(BLOCK_SIZE);
      world.model.of(newer.id).fill(0, 10 * BLOCK_SIZE, 11 * BLOCK_SIZE);
      await world.writeBlock(2);
      await world.writeBlock(9, 2);
      await expectSound(world);
      await world.volume.close();
    });

    test('what a snapshot skips does not move', async () => {
      const world = await create();
      const snapshot = await world.snapshot({ unusedSpace: freeing([2, 9]) });
      for (const block of [2, 9])
        world.model.of(snapshot.id).fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
      await move(world, 2, 12);
      await move(world, 3, 9);
      expect(live(world)).toEqual([]);
      await world.writeBlock(12);
      await world.writeBlock(3);
      await expectSound(world);
      await world.volume.close();
    });

    test('snapshots with moves are deleted in any order', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 20, 30, 2);
      const second = await world.snapshot();
      await move(world, 2, 9, 2);
      await world.writeBlock(30);
      const third = await world.snapshot();
      await world.writeBlock(9);
      await world.writeBlock(2);
      await move(world, 31, 40);
      await world.writeBlock(20, 2);
      // The elder of the one, then the one itself, has live moves; and its last ones go with it.
      for (const { id } of [third, second]) {
        await world.volume.snapshots.find((snapshot) => snapshot.id === id)?.delete({ wait: true });
        await expectSound(world);
        await world.writeBlock(31);
        await world.writeBlock(40);
      }
      expect(areaOf(world).moves.isEmpty).toBe(true);
      await expectSound(world);
      await world.volume.close();
    });

    test('a copy that spent a move is merged as that of its source', async () => {
      const world = await create();
      await world.snapshot();
      const second = await world.snapshot();
      await move(world, 2, 9);
      await world.writeBlock(9);
      await world.volume.flush();
      expect(live(world)).toEqual([]);
      await world.reopen();
      await world.snapshot();
      await world.writeBlock(2, 8);
      await world.volume.snapshots.find(({ id }) => id === second.id)?.delete({ wait: true });
      await expectSound(world);
      await world.volume.close();
    });

    describe('without room for copies of what moved', () => {
      /** Two snapshots, the newer one with moves, and a store that cannot grow. */
      const full = async (options: CreateSnapshotOptions = {}) => {
        const world = await create();
        await world.snapshot();
        const { id } = await world.snapshot(options);
        await move(world, 10, 40, 6);
        await world.writeBlock(10, 6);
        await world.volume.setSpacePolicy('fail-writes');
        await world.volume.setMaximumSize(BLOCK_SIZE); // nothing that is not used is left
        await world.volume.setSpacePolicy('delete-oldest');
        return { world, id };
      };

      test('the newest snapshot cannot be deleted, and no other goes for it', async () => {
        const { world, id } = await full();
        const newest = world.volume.snapshots[1];
        await expect(newest?.delete()).rejects.toThrow(NoSpaceError);
        expect(world.volume.snapshots).toHaveLength(2);
        expect(world.volume.figures.space?.isFull).toBe(false);
        await world.expectRight();
        await world.volume.setMaximumSize(0);
        await newest?.delete({ wait: true });
        expect(world.volume.snapshots.map((snapshot) => snapshot.id)).not.toContain(id);
        await expectSound(world);
        await world.volume.close();
      });

      test.each(['kill', 'reopen'] as const)(
        'one that its owner leaves (%s) waits, and no other goes for it',
        async (end) => {
          const { world, id } = await full({ autoRelease: true });
          for (let opening = 0; opening < 2; opening++) {
            await world[end]();
            expect(world.volume.snapshots.map((snapshot) => snapshot.id)).not.toContain(id);
            expect(world.volume.snapshots).toHaveLength(1);
            expect(world.volume.recovery.droppedSnapshots).toEqual([{ id, reason: 'released' }]);
            await world.expectRight();
          }
          await world.volume.setMaximumSize(0);
          await world.reopen();
          await world.volume.settled();
          expect(world.volume.figures.deletion.snapshots).toBe(0);
          await expectSound(world);
          await world.volume.close();
        },
      );
    });

    test('an opening tells which snapshots went because copies could not be kept', async () => {
      const world = await create();
      const older = await world.snapshot();
      const released = [
        await world.snapshot({ autoRelease: true }),
        await world.snapshot({ autoRelease: true }),
      ];
      await move(world, 10, 40, 2);
      await world.writeBlock(10, 2);
      await world.volume.flush();
      const opening = world.kill();
      world.hooks.before = ({ kind, length }) => {
        if (kind === 'write' && length > BLOCK_SIZE) throw systemFailure('EIO');
        return undefined;
      };
      await opening;
      expect(world.volume.snapshots).toEqual([]);
      expect(world.volume.recovery.droppedSnapshots.map(({ id }) => id).sort()).toEqual(
        [older, ...released].map(({ id }) => id).sort(),
      );
      expect(world.volume.recovery.droppedSnapshots).toContainEqual({ id: older.id, reason: 'copy-failed' });
      world.hooks.before = () => undefined;
      await expectSound(world);
      await world.volume.close();
    });

    test('a move takes no slot of the table that names it', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 60);
      const area = areaOf(world);
      const table = await area.tableBackwards();
      expect(await table.cut(table.places)).toBeLessThan(area.allocatedBytes / BLOCK_SIZE);
    });

    test('a process killed while the end of a table is cut off leaves no copy of what moved that passes for another', async () => {
      for (let at = 1; ; at++) {
        const world = await create();
        const { id } = await world.snapshot();
        await move(world, 5, 4);
        await world.writeBlock(4);
        await world.volume.flush();
        // The last entries: the target itself, the move, and the copy of what moved there.
        const table = await areaOf(world).tableBackwards();
        let count = 0;
        world.hooks.before = () => (++count < at ? undefined : new Promise<void>(() => undefined));
        const cut = table.cut(table.places - 2).then(() => 'cut');
        const outcome = await Promise.race([cut, settle().then(() => 'killed')]);
        world.hooks.before = () => undefined;
        await world.kill();
        // The elder has what was cut off; what is left must be of the block that it is shown for.
        const target = await world.volume.snapshots[0]?.read(4 * BLOCK_SIZE, BLOCK_SIZE);
        expect(target).toEqual(world.model.of(id).subarray(4 * BLOCK_SIZE, 5 * BLOCK_SIZE));
        await world.volume.close();
        if (outcome === 'cut') break;
      }
    });

    test('a process that is killed after a deletion has begun leaves all that moved right', async () => {
      const world = await create();
      const random = new SeededRandom(`deleted ${layout} ${writeMode}`);
      for (let round = 0; round < 6; round++) {
        for (let i = 0; i < 3; i++) {
          await world.snapshot();
          await move(world, random.below(60), random.below(60), random.between(1, 4));
          await world.writeBlock(random.below(60), random.between(1, 4));
        }
        await world.volume.flush();
        const { snapshots } = world.volume;
        await snapshots[random.below(snapshots.length)]?.delete();
        await world.kill();
        await world.expectRight();
      }
      await world.volume.settled();
      await expectSound(world);
      await world.volume.close();
    });

    test('while the volume is put back to a snapshot nothing moves, and what moved before is put back', async () => {
      const world = await create();
      const target = await world.snapshot();
      await move(world, 2, 9, 3);
      await world.writeBlock(2, 2);
      await world.snapshot();
      await move(world, 9, 50);
      await world.writeBlock(9, 2);
      const before = world.model.bytes.slice();
      const revert = world.volume.revert(target);
      await revert.begun;
      world.model.bytes.set(world.model.of(target.id));
      const previous = world.volume.snapshots.at(-1);
      expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
      await move(world, 2, 30, 2);
      await move(world, 9, 2);
      expect(live(world)).toEqual([]);
      await revert.completed;
      expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
      expect(Buffer.compare((await previous?.read(0, world.size)) ?? before, before)).toBe(0);
      expect(Buffer.compare(await target.read(0, world.size), world.model.of(target.id))).toBe(0);
      expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
      await world.volume.close();
    });

    test('nothing moves while a newer snapshot is being merged', async () => {
      const world = await create();
      await world.snapshot();
      await world.writeBlock(9);
      const newest = await world.snapshot();
      await world.writeBlock(9);
      await world.writeBlock(3);
      await world.volume.flush();
      const go = signal();
      let writes = 0;
      world.hooks.before = ({ kind }) => (kind === 'write' && ++writes > 1 ? go.promise : undefined);
      await newest.delete();
      const copied = [move(world, 2, 9), move(world, 3, 9)];
      world.hooks.before = () => undefined;
      go.fire();
      await Promise.all(copied);
      await world.writeBlock(2, 2);
      await world.volume.settled();
      await expectSound(world);
      await world.volume.close();
    });

    test('a snapshot that was written itself is merged without that', async () => {
      const world = await create();
      const first = await world.snapshot({ writable: true });
      await world.writeBlock(1, 4);
      const second = await world.snapshot({ writable: true });
      const overlay = world.random.fill(new Uint8Array(40_000));
      for (const snapshot of [first, second]) {
        await snapshot.write(5000, overlay);
        world.model.of(snapshot.id).set(overlay, 5000);
        await snapshot.flush();
        await snapshot.write(100_000, overlay); // not flushed
        world.model.of(snapshot.id).set(overlay, 100_000);
      }
      await world.snapshot();
      await world.writeBlock(0, 12);
      const writing = Promise.allSettled([second.write(200_000, overlay), second.write(5000, overlay)]);
      await second.delete({ wait: true });
      await writing;
      await expectSound(world);
      expect(await world.volume.snapshots[0]?.read(5000, overlay.byteLength)).toEqual(overlay);
      await world.volume.close();
    });

    test('chains collapse; what moves back, to itself or to a taken target is copied', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 9);
      await move(world, 9, 12);
      expect(live(world)).toEqual([{ from: 2, to: 12 }]);
      await expectSound(world);
      await move(world, 12, 2);
      await expectSound(world);
      await move(world, 3, 12);
      expect(live(world)).toEqual([{ from: 3, to: 12 }]);
      await move(world, 12, 12);
      await move(world, 4, 3);
      await move(world, 5, 4, 3);
      await world.writeBlock(3, 9);
      await expectSound(world);
      await world.volume.close();
    });

    test('a newer snapshot copies the targets for the older one', async () => {
      const world = await create();
      await world.snapshot();
      await move(world, 2, 9, 3);
      await world.snapshot();
      await move(world, 9, 20, 2);
      await world.writeBlock(2, 3);
      await world.writeBlock(9, 3);
      await expectSound(world);
      await world.writeBlock(20, 3);
      await expectSound(world);
      await world.volume.deleteOldest();
      await expectSound(world);
      await world.volume.close();
    });

    test('parts of blocks, unaligned, the short end: copied as they are', async () => {
      const world = await create({ size: 20 * BLOCK_SIZE + 700 });
      await world.snapshot();
      await copy(world, 100, 5 * BLOCK_SIZE + 100, 3 * BLOCK_SIZE);
      await copy(world, 7 * BLOCK_SIZE, 1000, 50_000);
      await copy(world, 15 * BLOCK_SIZE, 19 * BLOCK_SIZE, BLOCK_SIZE + 700);
      await copy(world, world.size - 300, 0, 300);
      await expectSound(world);
      await world.writeBlock(0, 21);
      await expectSound(world);
      await world.volume.close();
    });

    test('a killed process leaves every snapshot right', async () => {
      const world = await create();
      const random = new SeededRandom(`killed ${layout} ${writeMode}`);
      for (let round = 0; round < 8; round++) {
        await world.snapshot();
        for (let i = 0; i < 6; i++) {
          const count = random.between(1, 6);
          await move(world, random.below(64 - count), random.below(64 - count), count);
          await world.writeBlock(random.below(63), random.between(1, 2));
        }
        await world.volume.flush();
        await world.kill();
        await world.expectRight();
      }
      await world.volume.close();
      expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
    });

    test('beside writes, all at once', async () => {
      const world = await create();
      await world.snapshot();
      const random = new SeededRandom(`beside ${layout}`);
      // Each works in a quarter of its own.
      const workers = [0, 1, 2, 3].map(async (quarter) => {
        const base = quarter * 16;
        for (let i = 0; i < 10; i++) {
          await move(world, base + random.below(14), base + random.below(14), random.between(1, 2));
          await world.writeBlock(base + random.below(16));
        }
      });
      const taking = (async () => {
        await Promise.resolve();
        await world.volume.createSnapshot();
      })();
      await Promise.all([...workers, taking]);
      const [oldest] = world.volume.snapshots;
      expect(
        Buffer.compare(
          await (oldest?.read(0, world.size) ?? Buffer.alloc(0)),
          world.model.of(oldest?.id ?? ''),
        ),
      ).toBe(0);
      expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
      await world.volume.close();
    });

    test('what changed includes what moved away and was overwritten, and where it went', async () => {
      const world = await create({ filled: false });
      await world.writeBlock(1, 10);
      const since = await world.snapshot();
      await move(world, 2, 40);
      await world.writeBlock(2);
      const blocks = [];
      for await (const { offset, length } of world.volume.changedBlocks({ since }))
        for (let at = offset; at < offset + length; at += BLOCK_SIZE) blocks.push(at / BLOCK_SIZE);
      expect(blocks).toEqual([2, 40]);
      let at = 0;
      for await (const { length, zero } of since.allocation?.(0, since.size) ?? []) {
        if (zero) expect(at <= 2 * BLOCK_SIZE && 2 * BLOCK_SIZE < at + length).toBe(false);
        at += length;
      }
      await world.volume.close();
    });
  },
);
