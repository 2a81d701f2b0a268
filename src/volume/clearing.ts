/**
 * Making a range zero: what is known to be zero already is passed over. It reads as zeros before and after, for snapshots
 * too, so it needs neither a copy nor a write. The rest goes in parts, several at once, so that their copies share flushes.
 */
import { type Allocated, allocationOf } from '../device/allocation.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import type { ChangedExtent } from './changed-blocks.js';

/**
 * Data that is no further apart than this goes together: one call of the device costs more than a few copies of zeros,
 * which take an entry of a table each.
 */
const GAP_MAX = 8 * BLOCK_SIZE;
/** Parts in flight together; their bytes are limited too. */
const PARTS_MAX = 64;

/**
 * @param source says where its zeros are
 * @param partLimit bytes that may be in flight, in one part or in several
 * @param clear makes a part zero
 * @throws what the first part that failed threw, when no other is under way
 */
export async function clearRange(
  source: Allocated,
  range: ChangedExtent,
  partLimit: ByteLength,
  clear: (offset: ByteOffset, length: ByteLength) => Promise<void>,
): Promise<void> {
  const inFlight = new Set<Promise<void>>();
  let bytes = 0;
  const failures: unknown[] = [];
  const start = ({ offset, length }: ChangedExtent) => {
    bytes += length;
    const part = clear(offset, length)
      .catch((error: unknown) => void failures.push(error))
      .then(() => {
        bytes -= length;
        inFlight.delete(part);
      });
    inFlight.add(part);
  };
  for await (const part of partsToClear(source, range, partLimit)) {
    while (inFlight.size === PARTS_MAX || (inFlight.size > 0 && bytes + part.length > partLimit)) {
      await Promise.race(inFlight);
    }
    if (failures.length > 0) break;
    start(part);
  }
  await Promise.all(inFlight);
  if (failures.length > 0) throw failures[0];
}

/** What is not known to be zero, in parts no longer than the limit; of a range full of data all of it. */
async function* partsToClear(
  source: Allocated,
  range: ChangedExtent,
  limit: ByteLength,
): AsyncGenerator<ChangedExtent> {
  for await (const { offset, length } of spansToClear(source, range)) {
    for (let done = 0; done < length; done += limit) {
      yield { offset: offset + done, length: Math.min(limit, length - done) };
    }
  }
}

async function* spansToClear(
  source: Allocated,
  { offset, length }: ChangedExtent,
): AsyncGenerator<ChangedExtent> {
  let span: ChangedExtent | undefined;
  let at = offset;
  for await (const extent of allocationOf(source, offset, length)) {
    const start = at;
    at += extent.length;
    if (extent.zero) continue;
    if (span !== undefined && start - (span.offset + span.length) > GAP_MAX) {
      yield span;
      span = undefined;
    }
    const from = span?.offset ?? start;
    span = { offset: from, length: at - from };
  }
  if (span !== undefined) yield span;
}
