/** Writes of the mode `writeback` that need no copy and pass nothing that is older: straight to the volume. */
import type { BlockDevice } from '../device/block-device.js';
import { giveBack, type Lent } from '../device/buffer-pool.js';
import { assert } from '../errors.js';
import type { ByteOffset } from '../units.js';
import type { Shift, WriteGate } from './write-gate.js';

export class DirectWrites {
  readonly #device: BlockDevice;
  readonly #gate: WriteGate;
  /** Writes that the volume has. */
  count = 0;

  constructor(device: BlockDevice, gate: WriteGate) {
    this.#device = device;
    this.#gate = gate;
  }

  /** @returns `undefined` if the volume has it already @throws DeviceError */
  write(offset: ByteOffset, source: Uint8Array, lent: Lent | undefined): Promise<void> | undefined {
    const shift = this.#gate.enter();
    assert(typeof shift === 'number', () => `a write at ${offset} to a gate that is held without the buffer`);
    let isWritten = false;
    try {
      isWritten = this.#device.writeNow?.(offset, [source]) === true;
    } catch (error) {
      this.#gate.leave(shift);
      throw error;
    }
    if (!isWritten) return this.#writeSlowly(offset, source, lent, shift);
    this.#written(lent, shift);
    return undefined;
  }

  async #writeSlowly(offset: ByteOffset, source: Uint8Array, lent: Lent | undefined, shift: Shift) {
    try {
      await this.#device.write(offset, source);
    } catch (error) {
      this.#gate.leave(shift);
      throw error;
    }
    this.#written(lent, shift);
  }

  #written(lent: Lent | undefined, shift: Shift): void {
    this.count++;
    this.#gate.leave(shift);
    giveBack(lent);
  }
}
