/**
 * A volume that Windows wrote, open for writing: its gate, and copies into the stores of Windows.
 *
 * There is no write buffer. What was acknowledged from memory could find no room for its copies, and then neither the write nor the
 * shadow copies could be kept; so a write is acknowledged when it is in the volume, in either mode.
 */
import { WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import type { Lifetime } from '../device/lifetime.js';
import type { Clock } from '../environment.js';
import type { ForeignCopies } from '../windows/foreign-copies.js';
import type { ForeignWriter } from '../windows/foreign-writer.js';
import type { ChangeEngine } from './changing.js';

export class WindowsEngine implements ChangeEngine {
  readonly writes = undefined;
  readonly gate: WriteGate;
  readonly live: BlockDevice;

  constructor(
    readonly device: BlockDevice,
    readonly life: Lifetime,
    readonly writer: ForeignWriter,
    clock: Clock,
  ) {
    this.gate = new WriteGate(clock);
    this.live = device;
  }

  get copyOnWrite(): ForeignCopies {
    return this.writer.copies;
  }
}
