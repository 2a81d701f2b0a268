/** One change of the volume that waits in the write buffer. */
import type { BlockDevice } from '../device/block-device.js';
import type { Lent } from '../device/buffer-pool.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { IndexedRange } from './overlap-index.js';
import type { RoomAside } from './room-aside.js';
import type { Shift } from './write-gate.js';

/**
 * - `kept`: waits for older changes of the same bytes, or for a snapshot that is being taken
 * - `passed`: on its way; its copies are being made, or it waits for its turn
 * - `parked`: a copy that it needs finds no room on the host; it is tried again
 * - `writing`: the device has its bytes, which must not change any more
 * - `over`: in the volume, or failed
 * - `stuck`: cannot reach the volume; its bytes stay, for those who read
 */
export type BufferedState = 'kept' | 'passed' | 'parked' | 'writing' | 'over' | 'stuck';

/** What a change that is not a write of bytes does to the device, and who waits for it. */
export interface AwaitedAction {
  run(device: BlockDevice, offset: ByteOffset, length: ByteLength): Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
}

export class BufferedWrite implements IndexedRange {
  readonly offset: ByteOffset;
  readonly end: ByteOffset;
  readonly sequence: number;
  /** Snapshots, by count, that were taken or tried before it. */
  readonly epoch: number;
  /** What is to be written; `undefined` for an action, which was not acknowledged and has no bytes of its own. */
  readonly bytes: Uint8Array | undefined;
  readonly action: AwaitedAction | undefined;
  state: BufferedState = 'kept';
  /** Older changes of the same bytes that are not over. */
  blockers = 0;
  /** Newer ones that this one blocks. */
  followers: BufferedWrite[] | undefined;
  wasTriedAgain = false;
  /** Room for its copies; given back when it is over. */
  readonly aside: readonly RoomAside[];
  /** Does its memory count in the buffer? That of a parked one does not: others need the room. */
  isCounted = true;
  /** What to leave the gate with. */
  shift: Shift = 0;
  /** Where `bytes` lie. */
  readonly lent: Lent | undefined;
  /** The buffer itself, and readers who will lay the bytes over what they read. At 0 what was lent goes back. */
  holders = 1;

  constructor(
    offset: ByteOffset,
    length: ByteLength,
    sequence: number,
    epoch: number,
    content: { readonly lent: Lent; readonly bytes: Uint8Array } | AwaitedAction,
    aside: readonly RoomAside[] = [],
  ) {
    this.aside = aside;
    this.offset = offset;
    this.end = offset + length;
    this.sequence = sequence;
    this.epoch = epoch;
    const isAction = 'run' in content;
    this.bytes = isAction ? undefined : content.bytes;
    this.lent = isAction ? undefined : content.lent;
    this.action = isAction ? content : undefined;
  }

  get length(): ByteLength {
    return this.end - this.offset;
  }

  /** Copies the part of the bytes that lies in the range of `target`, which begins at `offset`. */
  layOver(offset: ByteOffset, target: Uint8Array): void {
    const { bytes } = this;
    if (bytes === undefined) return;
    const from = Math.max(offset, this.offset);
    const to = Math.min(offset + target.byteLength, this.end);
    target.set(bytes.subarray(from - this.offset, to - this.offset), from - offset);
  }

  /** Tells whoever waits for it. */
  answer(error: unknown): void {
    if (error === undefined) this.action?.resolve();
    else this.action?.reject(error);
  }

  /** Takes newer bytes in place of its own, if it covers them and they are not on their way to the device yet. */
  absorb(offset: ByteOffset, source: Uint8Array, epoch: number): boolean {
    const { bytes, state } = this;
    const isOpen = state === 'kept' || state === 'passed' || state === 'parked';
    if (bytes === undefined || !isOpen || epoch !== this.epoch) return false;
    if (offset < this.offset || offset + source.byteLength > this.end) return false;
    bytes.set(source, offset - this.offset);
    return true;
  }
}
