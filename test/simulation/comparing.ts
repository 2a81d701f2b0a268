/** What a volume says of its content, held against the content. */
import { isZeros } from '../../src/device/zeros.js';
import { allocationOf, type Snapshot, type Volume } from '../../src/index.js';
import { ModelMismatch } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Range } from './plan.js';
import type { ReadBuffers } from './read-buffers.js';

/** Every block that differs is reported as changed. @param until `undefined`: now @throws ModelMismatch */
export async function compareChanges(
  volume: Volume,
  buffers: ReadBuffers,
  since: Snapshot,
  until: Snapshot | undefined,
): Promise<void> {
  // Read first: what is written meanwhile may be reported or not.
  const read = () => (until ?? volume).read(0, buffers.take(until?.size ?? volume.size));
  const after = await read();
  const before = await since.read(0, buffers.take(since.size));
  const changed = new Uint8Array(volume.size);
  for await (const { offset, length } of volume.changedBlocks(until ? { since, until } : { since }))
    changed.fill(1, offset, offset + length);
  // That block is compared, and may be equal again by then.
  const mayChange = until === undefined || since.writable || until.writable;
  if (mayChange && volume.figures.layout === 'in-volume') changed.fill(1, 0, BLOCK_SIZE);
  // What the volume has grown by has changed, too.
  const missed = missedIn(before, after, changed);
  if (missed.length === 0) {
    for (const bytes of [after, before]) buffers.give(bytes);
    return;
  }
  // A revert that was cancelled meanwhile has put it back: it differed, and does no more.
  const now = await read();
  const [first] = missed.filter((at) => after[at] === now[at]);
  if (first !== undefined)
    throw new ModelMismatch(
      `byte ${first} differs between ${since.label} and ${until?.label ?? 'now'}, but is not reported as changed`,
    );
}

/** Bytes that differ and are not reported as changed. */
function missedIn(before: Uint8Array, after: Uint8Array, changed: Uint8Array): number[] {
  const missed: number[] = [];
  for (let start = 0; start < after.byteLength; start += BLOCK_SIZE) {
    const end = Math.min(start + BLOCK_SIZE, after.byteLength);
    // Most blocks are equal, and are not looked at byte by byte.
    if (Buffer.compare(after.subarray(start, end), before.subarray(start, end)) === 0) continue;
    for (let at = start; at < end; at++) if (after[at] !== before[at] && changed[at] === 0) missed.push(at);
  }
  return missed;
}

/** What a snapshot knows to be zero reads as zeros, always: it does not change. @throws ModelMismatch */
export async function checkZeros(
  snapshot: Snapshot,
  { offset, length }: Range,
  bytes: Uint8Array,
): Promise<void> {
  let at = 0;
  for await (const extent of allocationOf(snapshot, offset, length)) {
    const part = bytes.subarray(at, at + extent.length);
    if (extent.zero && !isZeros(part)) {
      const wrong = offset + at + part.findIndex((byte) => byte !== 0);
      throw new ModelMismatch(`byte ${wrong} of ${snapshot.label} is not zero, but is said to be`);
    }
    at += extent.length;
  }
  if (at !== length) throw new ModelMismatch(`of ${length} bytes ${at} are described as zero or not`);
}
