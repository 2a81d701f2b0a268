/** What several tests of the codecs start from. */
import fc from 'fast-check';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import type { ReadContext } from '../../../src/format/binary.ts';
import type { NewBlock } from '../../../src/format/block-header.ts';
import { isGuid } from '../../../src/format/guid.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';

export const OFFSET = 5 * BLOCK_SIZE;
export const context: ReadContext = { offset: OFFSET };
export const foreignContext: ReadContext = { offset: OFFSET, foreign: true };

export const ours: NewBlock = {
  fileOffset: 2 * BLOCK_SIZE,
  volumeOffset: OFFSET,
  nextOffset: 9 * BLOCK_SIZE,
  epoch: 0xfedc_ba98_7654_3210n,
};
export const windows: NewBlock = { ...ours, epoch: undefined };

export const guids = fc.uuid().filter(isGuid);
export const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
export const u32 = fc.nat({ max: 0xffff_ffff });
export const safe = fc.nat({ max: Number.MAX_SAFE_INTEGER });
export const aligned = fc.nat({ max: 2 ** 39 - 1 }).map((block) => block * BLOCK_SIZE);

/** Runs `decode` and says what came of it; anything but a value or a format error fails the test. */
export function outcome(decode: () => unknown): 'value' | 'refused' {
  try {
    decode();
    return 'value';
  } catch (error) {
    if (error instanceof FormatError || error instanceof UnsupportedError) return 'refused';
    throw error;
  }
}

/** Runs `decode` on random bytes, on damaged good ones and on cut ones; it must never fail in any other way. */
export function survivesAnyBytes(good: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  const changes = fc.array(fc.tuple(fc.nat({ max: good.byteLength - 1 }), fc.nat({ max: 255 })), {
    maxLength: 8,
  });
  fc.assert(
    fc.property(changes, fc.nat({ max: good.byteLength }), (list, cut) => {
      const bytes = good.slice();
      for (const [at, value] of list) bytes[at] = value;
      outcome(() => decode(bytes));
      outcome(() => decode(bytes.subarray(0, cut)));
    }),
    { numRuns: 200 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      outcome(() => decode(bytes));
    }),
    { numRuns: 100 },
  );
}
