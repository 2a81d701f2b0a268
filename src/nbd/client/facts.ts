/** What an export is, as its server says. */

import { DeviceError } from '../../errors.js';
import type { ByteLength } from '../../units.js';
import { PAYLOAD_MAX, type ReplyStyle, TransmissionFlag } from '../wire/constants.js';
import type { BlockSizes } from '../wire/option.js';
import { malformed } from './failure.js';

export interface ExportFacts {
  readonly size: ByteLength;
  /** `TransmissionFlag`s. */
  readonly flags: number;
  readonly blocks: BlockSizes;
  readonly style: ReplyStyle;
  /** The metadata contexts that it describes its blocks in, with their numbers in replies. */
  readonly contexts: ReadonlyMap<string, number>;
}

/** The largest minimum block size that the protocol allows, in bytes. */
const MINIMUM_MAX = 65_536;
/** What clients assume who were told nothing. */
const USUAL_MINIMUM = 512;
const USUAL_PREFERRED = 4096;

/** Checks what a server said. @throws ConnectionEnd, DeviceError */
export function checkFacts(found: {
  readonly size: number;
  readonly flags: number;
  readonly blocks: BlockSizes | undefined;
  readonly style: ReplyStyle;
  readonly contexts: ReadonlyMap<string, number>;
}): ExportFacts {
  const { size, blocks, style, contexts } = found;
  if (!Number.isSafeInteger(size)) {
    throw new DeviceError(`the export has more than ${Number.MAX_SAFE_INTEGER} bytes, which is too large`);
  }
  const flags = (found.flags & TransmissionFlag.hasFlags) === 0 ? 0 : found.flags;
  return { size, flags, blocks: checkBlocks(size, blocks), style, contexts };
}

function checkBlocks(size: ByteLength, blocks: BlockSizes | undefined): BlockSizes {
  if (blocks === undefined) {
    const minimum = size % USUAL_MINIMUM === 0 ? USUAL_MINIMUM : 1;
    return { minimum, preferred: USUAL_PREFERRED, maximum: PAYLOAD_MAX };
  }
  const { minimum, preferred, maximum } = blocks;
  if (!isPowerOfTwo(minimum) || minimum > MINIMUM_MAX)
    throw malformed(`its minimum block size is ${minimum}, no power of 2 up to ${MINIMUM_MAX}`);
  if (maximum < minimum)
    throw malformed(
      `its maximum payload of ${maximum} bytes is less than its minimum block size, ${minimum}`,
    );
  if (size % minimum !== 0) {
    throw new DeviceError(
      `the export has ${size} bytes, which are no whole number of its blocks of ${minimum}, so its end cannot be reached`,
    );
  }
  return { minimum, preferred, maximum };
}

const isPowerOfTwo = (value: number): boolean => value > 0 && (value & (value - 1)) === 0;

/** In words, how an export is another than it was; `undefined` if whoever uses it need not know. */
export function difference(before: ExportFacts, now: ExportFacts): string | undefined {
  if (before.size !== now.size) return `it had ${before.size} bytes and has ${now.size}`;
  if ((now.flags & TransmissionFlag.readOnly) !== (before.flags & TransmissionFlag.readOnly))
    return `it ${(now.flags & TransmissionFlag.readOnly) === 0 ? 'was' : 'is'} read-only`;
  const gone = Object.entries(TransmissionFlag).find(([, bit]) => (before.flags & bit & ~now.flags) !== 0);
  if (gone !== undefined) return `it can no longer do what it could (${gone[0]})`;
  if (now.blocks.minimum > before.blocks.minimum || now.blocks.maximum < before.blocks.maximum)
    return 'its block sizes are other ones';
  const context = [...before.contexts.keys()].find((name) => !now.contexts.has(name));
  return context === undefined ? undefined : `it no longer tells ${context}`;
}
