/** What the shadow copies of an image must read as, whatever is written to the volume, but for what Windows leaves undefined. */
import { MemoryDevice } from '../../../src/index.js';
import { ModelMismatch } from '../../../src/testing/index.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import type { WritableImage } from '../../interop/support/random-windows-image.js';

/** What a shadow copy must read as. */
export interface Expected {
  /** As events tell it. */
  readonly id: string;
  readonly storeId: string;
  readonly bytes: Uint8Array;
  /** Blocks that Windows leaves undefined. */
  readonly undefinedBlocks: ReadonlySet<number>;
  /** `deleting`: it may be gone. */
  state: 'there' | 'deleting' | 'gone';
}

/** A shadow copy as somebody reads it. */
interface Readable {
  readonly storeId: string;
  readonly size: number;
  readonly reason: string | undefined;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export class ExpectedCopies {
  /** Oldest first. */
  readonly all: readonly Expected[];
  /** Blocks of the stores, with those that entries take their data from. */
  readonly stores: ReadonlySet<number>;
  blocksCompared = 0;

  private constructor(all: readonly Expected[], stores: ReadonlySet<number>) {
    this.all = all;
    this.stores = stores;
  }

  static async of(image: WritableImage): Promise<ExpectedCopies> {
    const stores = storeBlocks(image);
    const { snapshots } = await ForeignStore.open(new MemoryDevice(image.bytes));
    const all: Expected[] = [];
    for (const [age, snapshot] of snapshots.entries()) {
      all.push({
        id: snapshot.snapshotId ?? snapshot.storeId,
        storeId: snapshot.storeId,
        bytes: await snapshot.read(0, snapshot.size),
        undefinedBlocks: undefinedIn(image, age, stores),
        state: 'there',
      });
    }
    return new ExpectedCopies(all, stores);
  }

  /** @param name of a shadow copy, or of its store */
  find(name: string): Expected | undefined {
    return this.all.find(({ id, storeId }) => id === name || storeId === name);
  }

  /** After a crash: each is there, and right, or gone if it may be. */
  async compare(snapshots: readonly Readable[]): Promise<void> {
    for (const expected of this.all) {
      const { storeId, state } = expected;
      const snapshot = snapshots.find((each) => each.storeId === storeId);
      if (state === 'deleting' && snapshot?.reason === undefined)
        expected.state = snapshot ? 'there' : 'gone';
      if (expected.state === 'gone' && snapshot !== undefined)
        throw new ModelMismatch(`shadow copy ${storeId} was deleted and is there`);
      if (expected.state === 'there' && snapshot === undefined)
        throw new ModelMismatch(`shadow copy ${storeId} is gone`);
      if (expected.state !== 'there' || snapshot === undefined) continue;
      this.check(expected, 0, await snapshot.read(0, snapshot.size));
    }
  }

  check({ storeId, bytes, undefinedBlocks }: Expected, offset: number, actual: Uint8Array): void {
    const end = offset + actual.byteLength;
    for (let from = offset, to: number; from < end; from = to) {
      const block = Math.floor(from / BLOCK_SIZE);
      to = Math.min(end, (block + 1) * BLOCK_SIZE);
      if (undefinedBlocks.has(block)) continue;
      if (Buffer.compare(actual.subarray(from - offset, to - offset), bytes.subarray(from, to)) !== 0)
        throw new ModelMismatch(`shadow copy ${storeId} is wrong in block ${block}`);
      this.blocksCompared++;
    }
  }
}

function undefinedIn(
  { snapshots }: WritableImage,
  age: number,
  stores: ReadonlySet<number>,
): ReadonlySet<number> {
  const { unused = [], previouslyUnused } = snapshots[age] ?? {};
  const isNewest = age === snapshots.length - 1;
  // The newest reads zeros only where both agree.
  const own =
    isNewest && previouslyUnused !== undefined
      ? unused.filter((block) => previouslyUnused.includes(block))
      : unused;
  return new Set([...own, ...stores]);
}

function storeBlocks({ stores, snapshots }: WritableImage): Set<number> {
  const blocks = new Set<number>();
  for (const [start, end] of stores) for (let block = start; block < end; block++) blocks.add(block);
  for (const { tables } of snapshots) {
    for (const { volumeOffset, flags } of tables.flat())
      if ((flags & 1) === 0 && volumeOffset !== 0) blocks.add(volumeOffset / BLOCK_SIZE);
  }
  return blocks;
}
