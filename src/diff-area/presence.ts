/** Which blocks have something, by pages of a bit for each block. */
import type { BlockNumber } from '../units.js';

/** Blocks described by one page: the unit in which presence is asked for. */
export const BLOCKS_PER_PAGE = 4096;

/** A bitmap with one bit for every block of a page, all clear. */
export const emptyPresence = (): Uint32Array => new Uint32Array(BLOCKS_PER_PAGE / 32);

/** Numbers of the set bits of `bitmap` plus `base`, ascending. */
export function* setBits(bitmap: Uint32Array, base: BlockNumber): Generator<BlockNumber> {
  for (let i = 0; i < bitmap.length; i++) {
    let rest = bitmap[i] ?? 0;
    while (rest !== 0) {
      const lowest = 31 - Math.clz32(rest & -rest);
      yield base + i * 32 + lowest;
      rest &= rest - 1;
    }
  }
}
