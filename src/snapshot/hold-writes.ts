/** Holding the writes of a volume for a moment: for a snapshot, or when a revert turns back. */
import type { WriteBuffer } from '../copy-on-write/write-buffer.js';
import { type WriteGate, withinLimit } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Environment } from '../environment.js';
import { HoldTimeoutError } from '../errors.js';
import type { Emit } from './events.js';

export interface HoldContext {
  readonly environment: Environment;
  readonly device: BlockDevice;
  readonly gate: WriteGate;
  /** In the mode `writeback`. */
  readonly writes: WriteBuffer | undefined;
  readonly emit: Emit;
  readonly figures: { holdMs: number };
}

/** Waits for `work`, but no longer than the hold limit allows; `what` says what was not done then. */
export type Limited = (what: string, work: Promise<void>) => Promise<void>;

/**
 * Runs `action` at one moment of the volume: everything acknowledged before is in it and durable, and nothing newer
 * gets there until the action is over.
 * @param incoming the diff area for copies that what is newer needs, if there is a new one
 * @throws HoldTimeoutError if that could not be had within the limit; DeviceError; what the action throws
 */
export async function whileHeld<T>(
  context: HoldContext,
  limitMs: number,
  incoming: DiffArea | undefined,
  action: (limited: Limited) => Promise<T>,
): Promise<T> {
  const { gate, writes, device, environment, figures, emit } = context;
  const { clock } = environment;
  let held = false;
  const heldSince = clock.monotonic();
  const deadline = heldSince + limitMs;
  const limited: Limited = (what, work) => withinLimit(clock, deadline - clock.monotonic(), work, what);
  // The moment of the snapshot: what the buffer takes from now on is newer.
  writes?.plug(incoming);
  try {
    if (writes !== undefined) await limited('buffered writes were not written', writes.drained());
    await gate.hold(deadline - clock.monotonic());
    held = true;
    await limited('the volume was not flushed', device.flush());
    return await action(limited);
  } catch (error) {
    if (error instanceof HoldTimeoutError) emit('holdTimedOut', { limitMs });
    throw error;
  } finally {
    figures.holdMs = clock.monotonic() - heldSince;
    if (held) gate.release();
    writes?.unplug();
  }
}
