/** What the server says that it can do. */
import { BLOCK_SIZE } from '../../units.js';
import { PAYLOAD_MAX, TransmissionFlag } from '../wire/constants.js';
import type { BlockSizes } from '../wire/option.js';
import type { Agreement } from './negotiation.js';

export const BLOCK_SIZES: BlockSizes = { minimum: 1, preferred: BLOCK_SIZE, maximum: PAYLOAD_MAX };

/** Flush and FUA on one connection cover what every other one wrote, so any number of them may be used together. */
const ALWAYS =
  TransmissionFlag.hasFlags |
  TransmissionFlag.sendFlush |
  TransmissionFlag.sendFua |
  TransmissionFlag.canMultiConn |
  TransmissionFlag.sendCache;

export function transmissionFlags({ export: { writable }, style, contexts }: Agreement): number {
  let flags = ALWAYS;
  if (writable) {
    flags |= TransmissionFlag.sendTrim | TransmissionFlag.sendWriteZeroes | TransmissionFlag.sendFastZero;
  } else {
    flags |= TransmissionFlag.readOnly;
  }
  if (style !== 'simple') flags |= TransmissionFlag.sendDf;
  if (style === 'extended' && contexts.length > 0) flags |= TransmissionFlag.blockStatusPayload;
  return flags;
}
