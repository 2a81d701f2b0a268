/** What the engine writes inside a volume, read by libvshadow: every snapshot, byte for byte. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_SIZE } from '../../src/units.ts';
import { makeInterleavedSnapshots } from '../unit/engine/fragments.ts';
import { settle } from '../unit/engine/hooks.ts';
import { KIBIBYTE, MEBIBYTE, World, type WorldOptions } from '../unit/engine/world.ts';
import { hashesOfBlocks } from './support/block-hashes.ts';
import { Libvshadow } from './support/libvshadow.ts';
import { requireTool, runWell } from './support/writer-tools.ts';

const hasLibvshadow = requireTool('pyvshadow', 'vshadowinfo');

const create = (options: WorldOptions): Promise<World> =>
  World.create({ layout: 'in-volume', reserve: 4 * MEBIBYTE, ...options });

describe.skipIf(!hasLibvshadow)('libvshadow reads what the engine wrote inside a volume', () => {
  let folder = '';
  let image = '';
  let libvshadow: Libvshadow;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'volsnap-writer-'));
    image = join(folder, 'image');
    libvshadow = new Libvshadow();
  });
  afterAll(async () => {
    await libvshadow[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** Ours and theirs agree with the model. The world is open before and after, but closed while it is looked at. */
  async function expectRead(
    world: World,
    { seed = '', close = true, leftOut = new Map<string, ReadonlySet<number>>() } = {},
  ): Promise<void> {
    await world.expectRight();
    const { volume } = world;
    const wanted = volume.snapshots.map((snapshot) => ({
      storeId: snapshot.storeId,
      snapshotId: snapshot.id,
      setId: snapshot.setId,
      milliseconds: snapshot.createdAt.getTime(),
      size: world.size,
      blocks: hashesOfBlocks(world.model.of(snapshot.id)),
    }));
    if (close) await volume.close();
    await writeFile(image, world.content.bytes);
    const answer = await libvshadow.read(image);
    if ('refused' in answer) expect.fail(`libvshadow refuses the image (seed ${seed}): ${answer.refused}`);
    const theirs = answer.snapshots.map(({ ticks, entryCount, ...rest }) => ({
      ...rest,
      milliseconds: Number((BigInt(ticks) - 116_444_736_000_000_000n) / 10_000n),
    }));
    for (const [index, snapshot] of wanted.entries()) {
      const { blocks, ...fields } = snapshot;
      const { blocks: read, ...theirFields } = theirs[index] ?? { blocks: [] };
      expect(theirFields, `snapshot ${index}, seed ${seed}`).toEqual(fields);
      // Of older snapshots it knows nothing of what is left out, and shows the volume there.
      const isKnown = (block: number) =>
        index === wanted.length - 1 || leftOut.get(fields.snapshotId)?.has(block) !== true;
      const wrong = blocks.flatMap((hash, block) => (hash === read[block] || !isKnown(block) ? [] : [block]));
      expect(wrong, `blocks of snapshot ${index}, seed ${seed}`).toEqual([]);
    }
    expect(theirs).toHaveLength(wanted.length);
    if (close) await world.open();
  }

  test('three snapshots with random writes between them', async () => {
    for (let round = 0; round < 20; round++) {
      const seed = `three ${round}`;
      const world = await create({ seed });
      for (let i = 0; i < 3; i++) {
        await world.writeRandomly(world.random.below(10));
        await world.snapshot();
      }
      await world.writeRandomly(world.random.below(20));
      await expectRead(world, { seed });
    }
  });

  test('a volume that was put back, with the marks of that in a table', async () => {
    for (let round = 0; round < 4; round++) {
      const world = await create({ seed: `revert ${round}` });
      const target = await world.snapshot();
      for (let i = 0; i < 3; i++) {
        await world.writeRandomly(1 + world.random.below(10));
        if (i < 2) await world.snapshot();
      }
      const revert = world.volume.revert(target);
      await revert.begun;
      const previous = world.volume.snapshots.at(-1);
      if (previous !== undefined) world.model.snapshots.set(previous.id, world.model.bytes.slice());
      world.model.bytes.set(world.model.of(target.id));
      await world.writeRandomly(world.random.below(10));
      await revert.completed;
      await world.writeRandomly(world.random.below(10));
      await expectRead(world);
    }
  });

  test('snapshots that leave out what nothing uses, with bitmaps and previous bitmaps', async () => {
    for (let round = 0; round < 12; round++) {
      const seed = `unused ${round}`;
      const world = await create({ seed });
      const leftOut = new Map<string, ReadonlySet<number>>();
      for (let i = 0; i < 3; i++) {
        await world.writeRandomly(world.random.below(12));
        const free = Array.from({ length: 64 }, (_, block) => block).filter(() => world.random.chance(0.7));
        const unused = new Uint8Array(8);
        for (const block of free) unused[block >>> 3] = (unused[block >>> 3] ?? 0) | (1 << (block & 7));
        const provider = { name: 'drawn', unusedBlocks: async () => ({ unused }) };
        const snapshot = await world.snapshot(
          i === 0 || world.random.chance(0.8) ? { unusedSpace: provider } : {},
        );
        if (snapshot.unusedBytes === 0) continue;
        const gone = new Set<number>();
        const bytes = world.model.of(snapshot.id);
        for (const block of free) {
          const found = await snapshot.read(block * BLOCK_SIZE, BLOCK_SIZE);
          if (found.some((byte) => byte !== 0)) continue;
          bytes.fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
          gone.add(block);
        }
        leftOut.set(snapshot.id, gone);
      }
      expect(leftOut.size).toBeGreaterThan(0);
      await world.writeRandomly(world.random.below(20));
      await expectRead(world, { seed, leftOut });
    }
  });

  test('a volume without any snapshot, and with one that nothing was written after', async () => {
    const world = await create({});
    await expectRead(world);
    await world.snapshot();
    await expectRead(world);
  });

  test('more entries than a table block holds', async () => {
    const world = await create({ size: 24 * MEBIBYTE, reserve: 40 * MEBIBYTE });
    await world.snapshot();
    await world.writeBlock(1, 507); // with block 0 exactly one table block
    await expectRead(world);
    await world.writeBlock(600);
    await expectRead(world);
    await world.snapshot();
    for (let block = 0; block < 1400; block += 7) await world.writeBlock(block, 5);
    await expectRead(world);
  });

  test('more than 32 snapshots, and more than a control block holds', async () => {
    const world = await create({
      size: 512 * KIBIBYTE,
      reserve: 100 * MEBIBYTE,
      growth: { initial: 9 * BLOCK_SIZE, maximum: 16 * BLOCK_SIZE },
    });
    for (let i = 0; i < 40; i++) {
      await world.snapshot();
      await world.writeRandomly(2);
    }
    await expectRead(world);
    for (let i = 40; i < 130; i++) {
      await world.snapshot();
      await world.writeRandomly(1);
    }
    await expectRead(world);
  });

  test('diff areas in pieces, made by growing and deleting', async () => {
    for (let round = 0; round < 5; round++) {
      const seed = `pieces ${round}`;
      const world = await create({
        seed,
        size: 2 * MEBIBYTE,
        reserve: 3 * MEBIBYTE,
        growth: { initial: BLOCK_SIZE, maximum: 2 * BLOCK_SIZE },
      });
      for (let i = 0; i < 25; i++) {
        await world.snapshot();
        for (let w = world.random.below(12); w > 0; w--) await world.writeRandomly(2, 2 * BLOCK_SIZE);
        await settle();
        if (world.random.chance(0.5)) await world.volume.deleteOldest();
      }
      await expectRead(world, { seed });
    }
  });

  test.each([30, 676, 677, 678, 900])('diff areas in %i pieces each', async (runs) => {
    const world = await create({
      size: 1000 * BLOCK_SIZE,
      reserve: (10 + 2 * (8 + runs) + 300) * BLOCK_SIZE,
      growth: { initial: BLOCK_SIZE, maximum: 2 * BLOCK_SIZE },
    });
    await world.volume.close();
    for (const id of await makeInterleavedSnapshots(world.device(), runs))
      world.model.snapshots.set(id, world.model.bytes.slice());
    await world.open();
    for (let block = 1; block < Math.min(990, runs + 100); block += 3) await world.writeBlock(block, 2);
    await settle();
    expect(world.volume.snapshots).toHaveLength(2);
    // Set ids and times of these two were not given by the engine's own creation, but they are read all the same.
    await expectRead(world);
  });

  test.each([
    [64 * BLOCK_SIZE + 512],
    [64 * BLOCK_SIZE - 512],
    [63 * BLOCK_SIZE + 17 * 512],
    [2 * BLOCK_SIZE + 1024],
    [64 * BLOCK_SIZE + 100],
    [64 * BLOCK_SIZE - 1],
  ])('a volume of %i bytes, which is no multiple of 16 KiB', async (size) => {
    const world = await create({ size });
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      await world.writeRandomly(6);
      await world.write(size - 3, world.random.fill(new Uint8Array(3)));
    }
    await expectRead(world);
  });

  test('blocks of zeros, which share one copy', async () => {
    const world = await create({ filled: false, size: 12 * MEBIBYTE });
    await world.snapshot();
    await world.writeBlock(3, 100);
    await world.snapshot();
    await world.volume.discard(2 * BLOCK_SIZE, 60 * BLOCK_SIZE);
    world.model.bytes.fill(0, 2 * BLOCK_SIZE, 62 * BLOCK_SIZE);
    await world.snapshot();
    await world.writeBlock(10, 600);
    await expectRead(world);
  });

  test('an image left by a killed process, as it lies and after opening it again', async () => {
    for (let round = 0; round < 10; round++) {
      const seed = `killed ${round}`;
      const world = await create({ seed });
      for (let i = 0; i < 3; i++) {
        await world.snapshot();
        await world.writeRandomly(8);
      }
      await settle();
      await expectRead(world, { seed, close: false });
      await world.kill();
      await world.writeRandomly(4);
      await expectRead(world, { seed });
    }
  });

  test('what is left after the oldest snapshots are deleted, and those taken in their place', async () => {
    const world = await create({ seed: 'deleted' });
    for (let i = 0; i < 5; i++) {
      await world.snapshot();
      await world.writeRandomly(6);
    }
    await world.volume.deleteOldest(2);
    await settle();
    await expectRead(world);
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      await world.writeRandomly(6);
    }
    await world.volume.deleteOldest();
    await expectRead(world);
    await world.volume.deleteOldest(10);
    await expectRead(world);
  });

  test('snapshots that were written themselves, over and over, between copies', async () => {
    for (let round = 0; round < 8; round++) {
      const seed = `written ${round}`;
      const world = await create({ seed, size: 40 * BLOCK_SIZE });
      for (let i = 0; i < 3; i++) {
        await world.snapshot({ writable: true });
        for (let w = 0; w < 12; w++) {
          const snapshot = world.random.pick(world.volume.snapshots);
          const length = world.random.between(1, 3 * BLOCK_SIZE);
          const offset = world.random.below(world.size - length + 1);
          const bytes = world.random.fill(new Uint8Array(length));
          await snapshot.write(offset, bytes);
          world.model.of(snapshot.id).set(bytes, offset);
          if (world.random.chance(0.3)) await snapshot.flush();
          await world.writeRandomly(1);
        }
      }
      await expectRead(world, { seed });
      for (const snapshot of world.volume.snapshots) await snapshot.write(0x1e00, new Uint8Array(1024));
      for (const { id } of world.volume.snapshots) world.model.of(id).fill(0, 0x1e00, 0x1e00 + 1024);
      await expectRead(world, { seed });
    }
  });

  test('blocks that were copied within the volume, and their sources and targets overwritten', async () => {
    for (let round = 0; round < 8; round++) {
      const seed = `moved ${round}`;
      const world = await create({ seed, size: 24 * BLOCK_SIZE });
      for (let i = 0; i < 3; i++) {
        await world.snapshot({ writable: true });
        for (let w = 0; w < 14; w++) {
          const count = world.random.between(1, 3);
          const [from, to] = [world.random.below(24 - count), world.random.below(24 - count)];
          await world.volume.copyRange(from * BLOCK_SIZE, to * BLOCK_SIZE, count * BLOCK_SIZE);
          world.model.bytes.copyWithin(to * BLOCK_SIZE, from * BLOCK_SIZE, (from + count) * BLOCK_SIZE);
          if (world.random.chance(0.5)) await world.writeBlock(world.random.below(24));
          if (world.random.chance(0.2)) {
            const snapshot = world.random.pick(world.volume.snapshots);
            const bytes = world.random.fill(new Uint8Array(3000));
            await snapshot.write(to * BLOCK_SIZE, bytes);
            world.model.of(snapshot.id).set(bytes, to * BLOCK_SIZE);
          }
        }
      }
      await expectRead(world, { seed });
      // Moves are settled, and what is left is merged.
      await world.volume.snapshots[world.random.between(1, 2)]?.delete({ wait: true });
      await world.writeBlock(world.random.below(24));
      await expectRead(world, { seed });
    }
  });

  test('what is left while a snapshot in the middle is being merged, and after', async () => {
    for (const reserve of [4 * MEBIBYTE, 2 * MEBIBYTE]) {
      const world = await create({ seed: `merge ${reserve}`, size: MEBIBYTE, reserve });
      for (let i = 0; i < 4; i++) {
        await world.snapshot();
        await world.writeRandomly(6);
      }
      await world.volume.snapshots[1]?.delete();
      await world.volume.snapshots[2]?.delete();
      // At whatever point: those that are being merged are there for libvshadow still.
      for (let turn = 0; turn < 20; turn++) {
        await new Promise((resolve) => setImmediate(resolve));
        const wanted = new Map(
          world.volume.snapshots.map(({ id }) => [id, hashesOfBlocks(world.model.of(id))] as const),
        );
        // As it is at this moment: merging goes on while the file is written.
        await writeFile(image, world.content.bytes.slice());
        const answer = await libvshadow.read(image);
        if ('refused' in answer) expect.fail(`libvshadow refuses the image: ${answer.refused}`);
        const theirs = new Map(answer.snapshots.map(({ storeId, blocks }) => [storeId, blocks]));
        for (const [id, blocks] of wanted) expect(theirs.get(id)).toEqual(blocks);
      }
      await world.volume.settled();
      await expectRead(world);
    }
  });

  test('the sector at 0x1E00: the start block outside, the volume’s own bytes in every snapshot', async () => {
    const world = await create({ seed: 'sector' });
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      await world.write(0x1e00 - 50, world.random.fill(new Uint8Array(612)));
    }
    await expectRead(world);
  });

  test('vshadowinfo lists identifiers, sets and times; labels and agents’ bytes disturb nothing', async () => {
    const world = await create({ seed: 'info' });
    const given = [
      { label: 'erste — первый 一 🗻' },
      { applicationInfo: world.random.fill(new Uint8Array(16_000)) },
      { label: '', applicationInfo: new Uint8Array(0) },
    ];
    for (const options of given) {
      await world.snapshot(options);
      await world.writeRandomly(4);
    }
    await expectRead(world);
    const output = await runWell('vshadowinfo', image);
    expect(output).toMatch(/Number of stores:\s+3/);
    const fields = (name: string) =>
      [...output.matchAll(new RegExp(`^\\s*${name}\\s*: (.*)$`, 'gm'))].map((m) => m[1]);
    const { snapshots } = world.volume;
    expect(fields('Identifier')).toEqual(snapshots.map(({ storeId }) => storeId));
    expect(fields('Shadow copy ID')).toEqual(snapshots.map(({ id }) => id));
    expect(fields('Shadow copy set ID')).toEqual(snapshots.map(({ setId }) => setId));
    const times = fields('Creation time').map((text) => Date.parse(`${text?.replace(/(\.\d{3})\d*/, '$1')}`));
    expect(times).toEqual(snapshots.map(({ createdAt }) => createdAt.getTime()));
    const agent = snapshots[1]?.applicationInfo;
    expect(agent).toEqual(given[1]?.applicationInfo);
  });

  test.skipIf(!requireTool('mkntfs'))('an NTFS volume with room behind it', async () => {
    const path = join(folder, 'ntfs');
    const size = 16 * MEBIBYTE;
    await writeFile(path, new Uint8Array(size));
    await runWell('mkntfs', '-F', '-q', '-Q', '-s', '512', '-c', '4096', '-L', 'test', path);
    const formatted = await readFile(path);
    const world = await World.create({
      layout: 'in-volume',
      size,
      seed: 'ntfs',
      filled: false,
      reserve: 16 * MEBIBYTE,
    });
    await world.volume.write(0, formatted);
    world.model.write(0, formatted);
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      for (let w = 0; w < 30; w++) {
        // The boot sector stays, as it tells libvshadow how large the volume is.
        const offset = world.random.between(512, size - 40_000);
        await world.write(offset, world.random.fill(new Uint8Array(world.random.between(1, 40_000))));
      }
    }
    await expectRead(world);
  });
});
