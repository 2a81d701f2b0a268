/**
 * One moment of a volume: everything acknowledged before is in it and durable, and nothing newer gets there until the hold
 * ends. A write buffer is emptied first, and takes what is newer in the meantime: then hardly any write is held.
 */
import { allDone } from '../all-done.js';
import type { WriteBuffer } from '../copy-on-write/write-buffer.js';
import { type WriteGate, withinLimit } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Environment } from '../environment.js';
import { HoldTimeoutError, InvalidArgumentError } from '../errors.js';
import type { Emit } from './events.js';

export const DEFAULT_HOLD_TIMEOUT_MS = 10_000;
/** Nobody should wait for longer. */
const HOLD_TIMEOUT_MAX_MS = 600_000;

/** The parts of the engine that a hold works with. */
export interface HoldContext {
  readonly environment: Environment;
  readonly device: BlockDevice;
  readonly gate: WriteGate;
  /** In the mode `writeback`. */
  readonly writes: WriteBuffer | undefined;
  readonly emit: Emit;
  readonly figures: { holdMs: number };
}

/** @returns `holdTimeoutMs` or the default, in milliseconds @throws InvalidArgumentError */
export function holdLimitOf({ holdTimeoutMs = DEFAULT_HOLD_TIMEOUT_MS }: { holdTimeoutMs?: number }): number {
  if (!(holdTimeoutMs > 0 && holdTimeoutMs <= HOLD_TIMEOUT_MAX_MS)) {
    throw new InvalidArgumentError(
      `holdTimeoutMs must be above 0 and at most ${HOLD_TIMEOUT_MAX_MS}, got ${holdTimeoutMs}`,
    );
  }
  return holdTimeoutMs;
}

/** One hold of one volume: `begin`, then `end`, whatever became of the first. */
export class Hold {
  readonly #context: HoldContext;
  #limitMs = 0;
  /** Both by the monotonic clock, in milliseconds. */
  #since = 0;
  #deadline = 0;
  #hasBegun = false;
  #isGateHeld = false;

  constructor(context: HoldContext) {
    this.#context = context;
  }

  /**
   * Writes and flushes what there is now, so that little is left when writes are held; they go on.
   * @throws HoldTimeoutError, DeviceError, NoSpaceError
   */
  async settleBefore(limitMs: number): Promise<void> {
    const { device, environment, writes } = this.#context;
    this.#limitMs = limitMs;
    const settled = writes === undefined ? device.flush() : writes.flush();
    await this.#told(withinLimit(environment.clock, limitMs, settled, 'what was written was not flushed'));
  }

  /**
   * The moment is this call itself, up to its first wait: of several volumes that are held in one turn it is the same.
   * @param limitMs how long writes may be held, in milliseconds
   * @param incoming the diff area for copies that what is newer needs, if there is a new one
   * @param meanwhile what may go on while the volume is flushed, with writes held
   * @throws HoldTimeoutError, DeviceError, what `meanwhile` throws; `end` must follow all the same
   */
  async begin(limitMs: number, incoming?: DiffArea, meanwhile?: () => Promise<void>): Promise<void> {
    const { gate, writes, device, environment } = this.#context;
    this.#limitMs = limitMs;
    this.#since = environment.clock.monotonic();
    this.#deadline = this.#since + limitMs;
    this.#hasBegun = true;
    // What the buffer takes from now on is newer.
    writes?.plug(incoming);
    if (writes !== undefined) await this.within('buffered writes were not written', writes.drained());
    await this.#told(gate.hold(this.#deadline - environment.clock.monotonic()));
    this.#isGateHeld = true;
    const flushed = this.within('the volume was not flushed', device.flush());
    await allDone([flushed, meanwhile?.()]);
  }

  /**
   * Waits for `work`, but no longer than the limit allows.
   * @param what says what was not done then
   * @throws HoldTimeoutError; what `work` throws
   */
  async within(what: string, work: Promise<void>): Promise<void> {
    const { clock } = this.#context.environment;
    await this.#told(withinLimit(clock, this.#deadline - clock.monotonic(), work, what));
  }

  async #told(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (error instanceof HoldTimeoutError) this.#context.emit('holdTimedOut', { limitMs: this.#limitMs });
      throw error;
    }
  }

  /** Lets writes go on; the second time it does nothing. */
  end(): void {
    const { gate, writes, figures, environment } = this.#context;
    if (!this.#hasBegun) return;
    this.#hasBegun = false;
    figures.holdMs = environment.clock.monotonic() - this.#since;
    const wasHeld = this.#isGateHeld;
    this.#isGateHeld = false;
    if (wasHeld) gate.release();
    writes?.unplug();
  }
}

/** Runs `action` during a hold. @param incoming as for `Hold.begin` @throws HoldTimeoutError, DeviceError; what the action throws */
export async function whileHeld<T>(
  context: HoldContext,
  limitMs: number,
  action: () => Promise<T>,
  incoming?: DiffArea,
): Promise<T> {
  const hold = new Hold(context);
  try {
    await hold.begin(limitMs, incoming);
    return await action();
  } finally {
    hold.end();
  }
}
