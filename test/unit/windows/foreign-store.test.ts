import { describe, expect, test } from 'vitest';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { type ControlItem, itemPosition } from '../../../src/format/control-block.ts';
import { DEFAULT_SPACE_RULES, encodeStartBlock } from '../../../src/format/start-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { copy, storeIdOf } from '../../interop/support/windows-image.ts';
import { changed, open, PLAN, put, SIZE, shown, states, T, withSnapshots } from './fixtures.ts';

describe('opening', () => {
  test('lists snapshots oldest first, whatever the order of their items', async () => {
    const items = { catalog: [[{ pair: 3 }], [], [{ pair: 1 }, { kind: 'free' } as const, { pair: 2 }]] };
    const store = await open({ ...PLAN, ...items, version: 2 });
    expect(store.snapshots.map(({ storeId }) => storeId)).toEqual([1, 2, 3].map(storeIdOf));
    expect([store.startBlock.version, store.notes, states(store)]).toEqual([2, [], ['ok', 'ok', 'ok']]);
    expect(store.snapshots[0]?.createdAt.toISOString()).toBe('2013-12-03T06:35:09.736Z');
  });

  test('matches items by GUID where libvshadow goes by their order', async () => {
    const image = changed((view, at) => {
      const item = (index: number) => new Uint8Array(view.buffer, at('control') + itemPosition(index), 128);
      const six = Array.from({ length: 6 }, (_, index) => item(index).slice());
      // Items were 1 1' 2 2' 3 3'; now 3' 2 1 1' 3 2'.
      [5, 2, 0, 1, 4, 3].forEach((from, to) => {
        item(to).set(six[from] ?? []);
      });
    });
    const store = await open(image);
    expect([await shown(store, 0, 1), await shown(store, 1, 1), await shown(store, 2, 1)]).toEqual([
      21, 22, 23,
    ]);
    expect(store.notes).toEqual([]);
  });

  test('says when order numbers had to decide', async () => {
    const store = await open(withSnapshots({ number: 2, createdAt: T }, { number: 1, createdAt: T }));
    expect(store.snapshots.map(({ order }) => order)).toEqual([1, 2]);
    expect(store.notes[0]).toMatch(/have one creation time; their order numbers decide/);
  });

  test('finds no snapshots where the start block names no catalog', async () => {
    expect((await open({ ...PLAN, catalog: [] })).snapshots).toEqual([]);
  });

  test('ignores a diff area that belongs to no snapshot, with a note', async () => {
    const store = await open(changed((view, at) => view.setUint32(at('control') + itemPosition(2), 1, true)));
    expect(store.snapshots).toHaveLength(2);
    expect(store.notes).toEqual([`diff-area item of store ${storeIdOf(2)} belongs to no snapshot; ignored`]);
  });

  test('notes a header that states another place', async () => {
    const store = await open(changed((view, at) => put(view, at('table 1') + 32, 1n << 63n)));
    expect(store.notes).toEqual([
      `diff-area table block at offset 0xa4000 says it lies at 0x8000000000000000`,
    ]);
    expect(states(store)).toEqual(['ok', 'ok', 'ok']);
  });

  test.each<[string, (view: DataView, at: (kind: string) => number) => void, string]>([
    ['no start block', (view) => view.setUint32(0x1e00, 0, true), 'block at offset 0x1e00: signature is'],
    [
      'a first control block of 2^63',
      (view) => put(view, 0x1e30, 1n << 63n),
      'first control block is 0x8000000000000000',
    ],
    [
      'a first control block past the end',
      (view) => put(view, 0x1e30, SIZE),
      'control block at offset 0x140000 does not lie within the device',
    ],
    [
      'a control block that is none',
      (view) => put(view, 0x1e30, BLOCK_SIZE),
      'block at offset 0x4000: signature is',
    ],
    [
      'version 2 in a control block',
      (view, at) => view.setUint32(at('control') + 16, 2, true),
      'control block version is 0x2, must be 1',
    ],
    [
      'a cycle of control blocks',
      (view, at) => put(view, at('control') + 40, at('control')),
      'follows itself: its chain is a cycle',
    ],
    [
      'an item of unknown type',
      (view, at) => view.setUint32(at('control') + itemPosition(9), 7, true),
      'control item at byte 1280: type is 0x7',
    ],
    [
      'two snapshots with one GUID',
      (view, at) => view.setUint8(at('control') + itemPosition(2) + 31, 1),
      `second snapshot item of store ${storeIdOf(1)}, must be the only one`,
    ],
  ])('is refused with %s', async (_, change, message) => {
    await expect(open(changed(change))).rejects.toThrow(FormatError);
    await expect(open(changed(change))).rejects.toThrow(message);
  });

  test('is refused for a store of ours, and for a device that is too small', async () => {
    const extension = {
      incompatible: 0,
      readOnlyCompatible: 0,
      compatible: 0,
      protectedSize: 0,
      layout: 'in-volume',
      storeId: 1n,
      clean: undefined,
      spaceRules: DEFAULT_SPACE_RULES,
    } as const;
    const start = {
      version: 1,
      firstControlBlock: 0,
      maximumSize: 0,
      volumeId: storeIdOf(0),
      storageVolumeId: storeIdOf(0),
      extension,
    } as const;
    const bytes = new Uint8Array(SIZE);
    bytes.set(encodeStartBlock(start), 0x1e00);
    await expect(open(bytes)).rejects.toThrow(UnsupportedError);
    await expect(open(new Uint8Array(0x1fff))).rejects.toThrow('too few for a start block at 0x1e00');
  });

  test('is refused for more than 512 snapshots', async () => {
    const items: ControlItem[] = Array.from({ length: 514 }, (_, index) => ({
      kind: 'snapshot',
      volumeSize: SIZE,
      storeId: `600f0b64-5bdf-11e3-9d6c-00505600${index.toString(16).padStart(4, '0')}`,
      order: index,
      flags: 0,
      createdAt: T + BigInt(index),
    }));
    const catalog = Array.from({ length: 5 }, (_, block) => items.slice(block * 127, (block + 1) * 127));
    await expect(open({ ...PLAN, snapshots: [], catalog })).rejects.toThrow('more than 512 snapshot items');
  });
});

describe('damage to one snapshot', () => {
  test('without a diff-area item makes it and every older one unreadable, not the newer', async () => {
    const store = await open(changed((view, at) => view.setUint32(at('control') + itemPosition(3), 1, true)));
    expect(states(store)).toEqual(['unreadable', 'unreadable', 'ok']);
    expect(store.snapshots[1]?.reason).toBe(`the catalog has no diff-area item of store ${storeIdOf(2)}`);
    expect(store.snapshots[0]?.reason).toBe(
      `it is read through the newer snapshot of store ${storeIdOf(2)}, which cannot be: the catalog has no diff-area item of store ${storeIdOf(2)}`,
    );
    expect(store.notes).toHaveLength(2);
    await expect(store.snapshots[0]?.read(0, 1)).rejects.toThrow(FormatError);
    await expect(store.snapshots[0]?.read(0, 1)).rejects.toThrow(
      `snapshot of store ${storeIdOf(1)} cannot be read: it is`,
    );
    expect(() => store.snapshots[1]?.tableBlocks()).toThrow(FormatError);
    expect([...(store.snapshots[0]?.tableBlocks() ?? [])]).toEqual([1, 11]);
    expect(await shown(store, 2, 1)).toBe(23);
  });

  test.each<[string, (view: DataView, at: (kind: string) => number) => void, string]>([
    [
      'a table past the end',
      (view, at) => put(view, at('control') + itemPosition(3) + 8, SIZE),
      'table block at offset 0x140000 does not lie within the device of 1310720 bytes',
    ],
    [
      'a table half past the end',
      (view, at) => put(view, at('control') + itemPosition(3) + 8, SIZE - 512),
      'table block at offset 0x13fe00 does not lie within',
    ],
    [
      'a table at 2^63',
      (view, at) => put(view, at('control') + itemPosition(3) + 8, 1n << 63n),
      'table block at offset 0x8000000000000000 does not lie within',
    ],
    [
      'a cycle of tables',
      (view, at) => put(view, at('table 2') + 40, at('table 2')),
      'follows itself: its chain is a cycle',
    ],
    [
      'a link past the end',
      (view, at) => put(view, at('table 2') + 40, SIZE),
      'at offset 0x140000, linked from 0xb4000, does not lie within',
    ],
    [
      'a link of 2^63',
      (view, at) => put(view, at('table 2') + 40, 1n << 63n),
      'next offset is 0x8000000000000000',
    ],
    [
      'a table block of another type',
      (view, at) => view.setUint32(at('table 2') + 20, 5, true),
      'block type is 0x5, must be 3',
    ],
    [
      'a move that names a copy',
      (view, at) => view.setUint32(at('table 2') + 128 + 24, 1, true),
      'volume offset of a move is',
    ],
  ])('by %s reaches it and the older', async (_, change, message) => {
    const store = await open(changed(change));
    expect(states(store)).toEqual(['unreadable', 'unreadable', 'ok']);
    expect(store.snapshots[1]?.reason).toMatch(message);
    await expect(store.snapshots[1]?.read(0, 1)).rejects.toThrow(message);
  });

  test.each<[string, (view: DataView, at: (kind: string) => number) => void, string]>([
    [
      'a cycle',
      (view, at) => put(view, at('bitmap 3') + 40, at('bitmap 3')),
      'bitmap block at offset 0xcc000 follows itself',
    ],
    ['no bitmap at its offset', (view, at) => view.setUint32(at('bitmap 3'), 0, true), 'signature is'],
  ])(
    'in its bitmap (%s) does not reach the older, and only the bitmap of the newest counts',
    async (_, change, message) => {
      const store = await open(changed(change));
      expect(states(store)).toEqual(['ok', 'ok', 'unreadable']);
      expect(store.snapshots[2]?.reason).toMatch(message);
      expect(await shown(store, 1, 13)).toBe(33);
      const older = await open(changed((view, at) => view.setUint32(at('bitmap 2'), 0, true)));
      expect(states(older)).toEqual(['ok', 'ok', 'ok']);
    },
  );

  test.each<[string, number, string]>([
    ['information', 32, 'application information of store'],
    ['locations', 40, 'locations of store'],
  ])('in its %s is a note', async (_, field, note) => {
    for (const place of [SIZE, BLOCK_SIZE, 1n << 63n]) {
      const store = await open(
        changed((view, at) => put(view, at('control') + itemPosition(3) + field, place)),
      );
      expect(states(store)).toEqual(['ok', 'ok', 'ok']);
      expect(store.notes).toEqual([expect.stringMatching(note)]);
      expect(store.snapshots[1]?.snapshotId === undefined).toBe(field === 32);
    }
  });

  test('by a copy past the end ends in an error for that block only', async () => {
    for (const place of [BigInt(SIZE), 1n << 63n, BigInt(SIZE - 512)]) {
      const store = await open(changed((view, at) => put(view, at('table 2') + 128 + 16, place)));
      await expect(store.snapshots[1]?.read(BLOCK_SIZE, BLOCK_SIZE)).rejects.toThrow(
        /content of block 1 lies at offset 0x[0-9a-f]+, past the end of the device of 1310720 bytes/,
      );
      expect(await shown(store, 1, 12)).toBe(32);
    }
  });

  test('that makes chains share their blocks without end stops at a bound', async () => {
    // 63 snapshots whose tables are one long chain: each alone is sound.
    const long = { tables: Array.from({ length: 30 }, () => [copy(1, 20)]) };
    const plan = withSnapshots(long, ...Array.from({ length: 62 }, () => ({})));
    const image = changed(
      (view, at) => {
        for (let index = 0; index < 63; index++)
          put(view, at('control') + itemPosition(2 * index + 1) + 8, at('table 1'));
      },
      { ...plan, size: 300 * BLOCK_SIZE },
    );
    const store = await open(image);
    expect(store.snapshots.at(-1)?.state).toBe('ok');
    expect(store.snapshots[0]?.reason).toMatch('the chains of this store have more blocks than the device');
  });
});
