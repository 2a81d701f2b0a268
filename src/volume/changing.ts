/** Changes of the live volume, part by part: through the gate, and once the newest snapshot has its copies. */
import { checkRange } from '../arguments.js';
import type { WriteBuffer } from '../copy-on-write/write-buffer.js';
import type { Shift, WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import { giveBack, type Lent } from '../device/buffer-pool.js';
import type { Lifetime } from '../device/lifetime.js';
import { writeZeros } from '../device/zeros.js';
import type { ProtectedBlocks } from '../snapshot/protected-blocks.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { clearRange } from './clearing.js';

/** What keeps the blocks that are about to be overwritten: see `CopyOnWrite`. */
export interface Keeper {
  /** Where it puts them; `undefined`: nothing has to be kept. */
  readonly target: unknown;
  protect(offset: ByteOffset, length: ByteLength): Promise<void> | undefined;
}

/** What a change of the live volume goes through, whoever wrote its snapshots. */
export interface ChangeEngine {
  readonly device: BlockDevice;
  readonly life: Lifetime;
  readonly gate: WriteGate;
  readonly copyOnWrite: Keeper;
  /** The volume as its users see it. */
  readonly live: BlockDevice;
  readonly writes: WriteBuffer | undefined;
  /** Of a store of volsnap that lies inside the volume. */
  readonly protectedBlocks?: ProtectedBlocks | undefined;
}

/** What happens to a part of a range, once its blocks are safe. */
export type Change = (device: BlockDevice, offset: ByteOffset, length: ByteLength) => Promise<void>;

/** The longest write that NBD clients send. */
export const PART_BYTES = 32 * 1024 * 1024;
/** The longest range that is cleared at once where nothing has to be copied first: that takes a few milliseconds. */
const CLEARED_BYTES = 128 * 1024 * 1024;

/**
 * Makes a range read as zeros by `action`, part by part. What is zero already stays as it is, and needs no copy: snapshots
 * see zeros there as before.
 */
export async function clear(
  engine: ChangeEngine,
  range: { readonly offset: ByteOffset; readonly length: ByteLength },
  action: Change,
): Promise<void> {
  const { writes, live, gate, copyOnWrite } = engine;
  const partLimit = copyOnWrite.target === undefined ? CLEARED_BYTES : PART_BYTES;
  await clearRange(
    writes ?? live,
    range,
    partLimit,
    (at, part) => writes?.change(at, part, action) ?? changePart(engine, at, part, action),
  );
  // Zeros that were passed over may be those of a change that has not ended yet; a flush would not cover them.
  await gate.whenLeft();
}

/** Writes any range, part by part. @returns `undefined` if it is done. @throws as `Volume.write`; what can be told beforehand, before anything is written */
export function writeRange(
  engine: ChangeEngine,
  offset: ByteOffset,
  source: Uint8Array,
): Promise<void> | undefined {
  const length = source.byteLength;
  checkRange(offset, length, engine.device.size);
  const admitted = engine.protectedBlocks?.admit(offset, length);
  if (admitted === undefined && length <= PART_BYTES) return writePart(engine, offset, source);
  return writeParts(engine, offset, source, admitted);
}

/**
 * As `writeRange`, one call of the volume, of memory that its owner gives away: the write buffer keeps it, else it goes back.
 * @returns `undefined` if it is done already @throws as `writeRange`, ClosedError
 */
export function takeRange(
  engine: ChangeEngine,
  offset: ByteOffset,
  source: Uint8Array,
  lent: Lent,
): Promise<void> | undefined {
  const { life, device, writes, protectedBlocks } = engine;
  const keeper = protectedBlocks === undefined && source.byteLength <= PART_BYTES ? writes : undefined;
  const over = () => {
    life.leave();
    if (keeper === undefined) giveBack(lent);
  };
  const fail = (error: unknown) => {
    life.leave();
    throw error;
  };
  life.enter();
  let written: Promise<void> | undefined;
  try {
    checkRange(offset, source.byteLength, device.size);
    written = keeper === undefined ? writeRange(engine, offset, source) : keeper.write(offset, source, lent);
  } catch (error) {
    return fail(error);
  }
  if (written !== undefined) return written.then(over, fail);
  over();
  return undefined;
}

async function writeParts(
  engine: ChangeEngine,
  offset: ByteOffset,
  source: Uint8Array,
  admitted: Promise<void> | undefined,
): Promise<void> {
  await admitted;
  for (let done = 0; done < source.byteLength; done += PART_BYTES)
    await writePart(engine, offset + done, source.subarray(done, done + PART_BYTES));
}

/** @returns `undefined` if it is done */
function writePart(engine: ChangeEngine, offset: ByteOffset, source: Uint8Array): Promise<void> | undefined {
  const { writes } = engine;
  if (writes !== undefined) return writes.write(offset, source);
  return writeOrdered(engine, offset, source);
}

/**
 * As `changePart`; apart from it because small writes feel every promise.
 * @returns `undefined` if it is done
 */
function writeOrdered(
  engine: ChangeEngine,
  offset: ByteOffset,
  source: Uint8Array,
): Promise<void> | undefined {
  const entered = engine.gate.enter();
  if (typeof entered !== 'number') return entered.then((shift) => writeInside(engine, offset, source, shift));
  return writeInside(engine, offset, source, entered);
}

/** Behind the gate, which it leaves. @returns `undefined` if it is done */
function writeInside(
  { gate, copyOnWrite, live }: ChangeEngine,
  offset: ByteOffset,
  source: Uint8Array,
  shift: Shift,
): Promise<void> | undefined {
  const leave = () => gate.leave(shift);
  const fail = (error: unknown) => {
    leave();
    throw error;
  };
  const write = (): Promise<void> | undefined => {
    try {
      if (live.writeNow?.(offset, [source]) !== true) return live.write(offset, source).then(leave, fail);
    } catch (error) {
      return fail(error);
    }
    leave();
    return undefined;
  };
  let copies: Promise<void> | undefined;
  try {
    copies = copyOnWrite.protect(offset, source.byteLength);
  } catch (error) {
    return fail(error);
  }
  return copies === undefined ? write() : copies.then(write, fail);
}

export async function changePart(
  { gate, copyOnWrite, live }: ChangeEngine,
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
