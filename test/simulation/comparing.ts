/** What a volume says of its content, held against the content. */
import { isZeros } from '../../src/device/zeros.js';
import { allocationOf, type Snapshot, type Volume } from '../../src/index.js';
import { ModelMismatch } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Range } from './plan.js';

/** Every block that differs is reported as changed. @param until `undefined`: now @throws ModelMismatch */
export async function compareChanges(
  volume: Volume,
  since: Snapshot,
  until: Snapshot | undefined,
): Promise<void> {
  // Read first: what is written meanwhile may be reported or not.
  const read = () => (until ?? volume).read(0, until?.size ?? volume.size);
  const after = await read();
  const before = await since.read(0, since.size);
  const changed = new Uint8Array(volume.size);
  for await (const { offset, length } of volume.changedBlocks(until ? { since, until } : { since }))
    changed.fill(1, offset, offset + length);
  // That block is compared, and may be equal again by then.
  const mayChange = until === undefined || since.writable || until.writable;
  if (mayChange && volume.figures.layout === 'in-volume') changed.fill(1, 0, BLOCK_SIZE);
  // What the volume has grown by has changed, too.
  const isMissed = (byte: number, at: number) => byte !== before[at] && changed[at] === 0;
  if (!after.some(isMissed)) return;
  // A revert that was cancelled meanwhile has put it back: it differed, and does no more.
  const now = await read();
  const missed = after.findIndex((byte, at) => isMissed(byte, at) && byte === now[at]);
  if (missed >= 0)
    throw new ModelMismatch(
      `byte ${missed} differs between ${since.label} and ${until?.label ?? 'now'}, but is not reported as changed`,
    );
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
