import { describe, expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { InvalidArgumentError, VolsnapError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import { itemPosition } from '../../../src/format/control-block.ts';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.ts';
import { ForeignStore } from '../../../src/windows/foreign-store.ts';
import {
  buildWindowsImage,
  copy,
  move,
  overlay,
  type SnapshotPlan,
  stampOf,
} from '../../interop/support/windows-image.ts';
import { changed, open, PLAN, put, SIZE, shown, withSnapshots } from './fixtures.ts';

describe('reading', () => {
  test('takes any range, over blocks and sectors', async () => {
    const { bytes } = buildWindowsImage(
      withSnapshots({ tables: [[copy(2, 20), overlay(2, 21, 0b110), overlay(3, 22, 1)]] }),
    );
    const store = await open(bytes);
    const expected = bytes.slice();
    expected.copyWithin(2 * BLOCK_SIZE, 20 * BLOCK_SIZE, 21 * BLOCK_SIZE);
    expected.copyWithin(2 * BLOCK_SIZE + 512, 21 * BLOCK_SIZE + 512, 21 * BLOCK_SIZE + 1536);
    expected.copyWithin(3 * BLOCK_SIZE, 22 * BLOCK_SIZE, 22 * BLOCK_SIZE + 512);
    const edges = [0, 1, 511, 512, 700, 1024, 1536, 2000, BLOCK_SIZE - 1].map(
      (edge) => 2 * BLOCK_SIZE + edge,
    );
    for (const from of edges)
      for (const to of [...edges, 3 * BLOCK_SIZE + 100, 3 * BLOCK_SIZE + 600, 5 * BLOCK_SIZE])
        if (from <= to) {
          const read = await store.snapshots[0]?.read(from, to - from);
          // Compared as buffers: `toEqual` takes seconds for so many bytes.
          expect(read && Buffer.compare(read, expected.subarray(from, to)), `${from} to ${to}`).toBe(0);
        }
    const whole = await store.snapshots[0]?.read(0, SIZE);
    expect(whole && Buffer.compare(whole, expected)).toBe(0);
  });

  test('of unlisted unused blocks gives zeros from the newest only', async () => {
    const store = await open(PLAN);
    expect([await shown(store, 0, 5), await shown(store, 1, 5), await shown(store, 2, 5)]).toEqual([
      5,
      5,
      'zeros',
    ]);
  });

  test.each<[string, Partial<SnapshotPlan>, number | 'zeros']>([
    ['both bitmaps', { unused: [5], previouslyUnused: [5] }, 'zeros'],
    ['the current bitmap only', { unused: [5], previouslyUnused: [6] }, 5],
    ['the previous bitmap only', { unused: [6], previouslyUnused: [5] }, 5],
    ['a previous bitmap without a current one', { previouslyUnused: [5] }, 5],
    ['the bitmap, but something moved there', { unused: [5], tables: [[move(7, 5)]] }, 5],
    ['the bitmap, with a copy', { unused: [5], tables: [[copy(5, 20)]] }, 20],
    ['the bitmap, moved away', { unused: [5, 7], tables: [[move(5, 7)]] }, 7],
  ])('of a block set in %s', async (_, snapshot, expected) => {
    expect(await shown(await open(withSnapshots(snapshot)), 0, 5)).toBe(expected);
  });

  test('lays an overlay over zeros, and shows it to no older snapshot', async () => {
    const store = await open(withSnapshots({}, { unused: [5], tables: [[overlay(5, 20, 2)]] }));
    const [older, newer] = [
      await store.snapshots[0]?.read(5 * BLOCK_SIZE, BLOCK_SIZE),
      await store.snapshots[1]?.read(5 * BLOCK_SIZE, BLOCK_SIZE),
    ];
    const words = (bytes: Uint8Array | undefined) =>
      [0, 1, 2].map((sector) =>
        bytes === undefined ? 0 : viewOf(bytes).getUint32(sector * SECTOR_SIZE, true),
      );
    expect(words(newer)).toEqual([0, stampOf(20, 1), 0]);
    expect(words(older)).toEqual([stampOf(5, 0), stampOf(5, 1), stampOf(5, 2)]);
  });

  test('follows moves through the newer snapshots, without their overlays', async () => {
    const store = await open(
      withSnapshots(
        { tables: [[move(2, 9)]] },
        { tables: [[move(9, 12), overlay(9, 20, 1)]] },
        { tables: [[copy(12, 21), move(3, 13)]] },
      ),
    );
    expect([
      await shown(store, 0, 2),
      await shown(store, 0, 9),
      await shown(store, 1, 9),
      await shown(store, 2, 9),
    ]).toEqual([21, 21, 20, 9]);
  });

  test('reads a move of the newest from the volume, past an own entry of its target', async () => {
    const store = await open(withSnapshots({ tables: [[copy(9, 20), move(2, 9)]] }));
    expect([await shown(store, 0, 2), await shown(store, 0, 9)]).toEqual([9, 20]);
  });

  test('asks the device once for neighbouring blocks from one place', async () => {
    const { bytes } = buildWindowsImage(
      withSnapshots({ tables: [[4, 5, 6, 7].map((block) => copy(block, block + 16))] }),
    );
    const device = new MemoryDevice(bytes);
    const store = await ForeignStore.open(device);
    const reads: [number, number][] = [];
    const read = device.read.bind(device);
    device.read = (offset, target) => {
      reads.push([offset / BLOCK_SIZE, target.byteLength / BLOCK_SIZE]);
      return read(offset, target);
    };
    await store.snapshots[0]?.read(BLOCK_SIZE, 10 * BLOCK_SIZE);
    expect(reads).toEqual([
      [1, 3],
      [20, 4],
      [8, 3],
    ]);
  });

  test('of a range outside the snapshot is refused', async () => {
    const [snapshot] = (await open(PLAN)).snapshots;
    for (const [offset, length] of [
      [0, SIZE + 1],
      [SIZE, 1],
      [-1, 1],
      [0.5, 1],
      [2 ** 53, 1],
    ] as const)
      await expect(snapshot?.read(offset, length)).rejects.toThrow(InvalidArgumentError);
    expect(await snapshot?.read(SIZE, 0)).toEqual(new Uint8Array(0));
  });

  test('waits for every request before it reports that one failed', async () => {
    const device = new MemoryDevice(buildWindowsImage(PLAN).bytes);
    const store = await ForeignStore.open(device);
    let running = 0;
    device.read = async (offset) => {
      running++;
      await new Promise((resolve) => setTimeout(resolve, offset === 23 * BLOCK_SIZE ? 0 : 5));
      running--;
      if (offset === 23 * BLOCK_SIZE) throw new VolsnapError('DEVICE', 'bad sector');
    };
    await expect(store.snapshots[2]?.read(0, 3 * BLOCK_SIZE)).rejects.toThrow('bad sector');
    expect(running).toBe(0);
  });

  test.each([SIZE + BLOCK_SIZE, 2 ** 60])(
    'of a snapshot that claims %d bytes ends with the device',
    async (claimed) => {
      const store = await open(
        changed((view, at) => put(view, at('control') + itemPosition(4) + 8, claimed)),
      );
      const newest = store.snapshots[2];
      expect([newest?.size, newest?.volumeSize, newest?.state]).toEqual([SIZE, claimed, 'ok']);
      expect(store.notes).toEqual([
        expect.stringMatching(`claims ${claimed} bytes; only the 1310720 of the device are read`),
      ]);
    },
  );

  test('knows how much a snapshot takes', async () => {
    const [oldest] = (await open(PLAN)).snapshots;
    // Information, location, table and two copies; the one run that the location block states ends at 64 blocks.
    expect([oldest?.usedBytes, oldest?.allocatedBytes]).toEqual([5 * BLOCK_SIZE, 64 * BLOCK_SIZE]);
    const lying = await open(
      changed((view, at) => put(view, at('control') + itemPosition(1) + 64, 1n << 63n)),
    );
    expect(lying.snapshots[0]?.allocatedBytes).toBe(SIZE);
  });
});
