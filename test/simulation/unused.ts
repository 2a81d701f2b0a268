/** What nothing uses in a simulated volume. */
import { isZeros } from '../../src/device/zeros.js';
import type { FreeSpaceProvider } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE, blocksIn } from '../../src/units.js';

export const NO_BLOCKS: ReadonlySet<number> = new Set();

/** Blocks of zeros in what was read of a snapshot: if it leaves anything out, it is among them. */
export function zeroBlocksOf(bytes: Uint8Array): ReadonlySet<number> {
  const blocks = new Set<number>();
  for (let block = 0; block < blocksIn(bytes.byteLength); block++) {
    const part = bytes.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    if (isZeros(part)) blocks.add(block);
  }
  return blocks;
}

/** Blocks that nothing uses, whatever they hold: here and there, long runs, none, all. */
export function drawUnused(seed: number, size: number): ReadonlySet<number> {
  const random = new SeededRandom(`free ${seed}`);
  const blocks = new Set<number>();
  const count = blocksIn(size);
  const share = random.pick([0.1, 0.5, 0.9, 1]);
  const lengths = random.pick([1, 4, 16]);
  for (let block = 0; block < count; ) {
    const end = Math.min(count, block + 1 + random.below(lengths));
    const isFree = random.chance(share);
    for (; block < end; block++) if (isFree) blocks.add(block);
  }
  return blocks;
}

/** Looks at the volume first, as real ones do. */
export const providerOf = (unused: ReadonlySet<number>): FreeSpaceProvider => ({
  name: 'drawn',
  async unusedBlocks(source, size) {
    const look = new Uint8Array(Math.min(size, 2 * BLOCK_SIZE));
    await source.read(0, look);
    await source.read(size - look.byteLength, look);
    const bits = new Uint8Array(Math.ceil(blocksIn(size) / 8));
    for (const block of unused) bits[block >>> 3] = (bits[block >>> 3] ?? 0) | (1 << (block & 7));
    return { unused: bits };
  },
});
