/** Changes of the live volume, part by part: through the gate, and once the newest snapshot has its copies. */
import type { BlockDevice } from '../device/block-device.js';
import { writeZeros } from '../device/zeros.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { Engine } from './engine.js';

/** What happens to a part of a range, once its blocks are safe. */
export type Change = (device: BlockDevice, offset: ByteOffset, length: ByteLength) => Promise<void>;

/** The longest write that NBD clients send. */
export const PART_BYTES = 32 * 1024 * 1024;
/** The longest range that is cleared at once where nothing has to be copied first: that takes a few milliseconds. */
export const CLEARED_BYTES = 128 * 1024 * 1024;

/** @returns `undefined` if it is done */
export function writePart(engine: Engine, offset: ByteOffset, source: Uint8Array): Promise<void> | undefined {
  const { writes } = engine;
  if (writes !== undefined) return writes.write(offset, source);
  return writeOrdered(engine, offset, source);
}

/** As `changePart`; apart from it because small writes would feel the closure. */
async function writeOrdered(
  { gate, copyOnWrite, live }: Engine,
  offset: ByteOffset,
  source: Uint8Array,
): Promise<void> {
  const entered = gate.enter();
  const shift = typeof entered === 'number' ? entered : await entered;
  try {
    const copies = copyOnWrite.protect(offset, source.byteLength);
    if (copies !== undefined) await copies;
    if (live.writeNow?.(offset, [source]) !== true) await live.write(offset, source);
  } finally {
    gate.leave(shift);
  }
}

export async function changePart(
  { gate, copyOnWrite, live }: Engine,
  offset: ByteOffset,
  length: ByteLength,
  action: Change,
): Promise<void> {
  const entered = gate.enter();
  const shift = typeof entered === 'number' ? entered : await entered;
  try {
    const copies = copyOnWrite.protect(offset, length);
    if (copies !== undefined) await copies;
    await action(live, offset, length);
  } finally {
    gate.leave(shift);
  }
}

export async function zero(device: BlockDevice, offset: ByteOffset, length: ByteLength): Promise<void> {
  if (device.writeZeroes !== undefined) return device.writeZeroes(offset, length);
  await writeZeros((at, source) => device.write(at, source), offset, length);
}
