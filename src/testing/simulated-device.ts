/**
 * A handle of a simulated disk: the contract of `ResizableDevice`, checked from both sides.
 *
 * The device keeps its part: ranges, order, failed flushes that stay failed, ends after `close`. And it watches its
 * user keep theirs: a source that changes while the device owns it, and overlapping writes where the disk forbids
 * them, are broken rules. The target of a read is scribbled over at the call, so that a use before completion shows.
 */
import type { AllocationExtent } from '../device/allocation.js';
import type { ResizableDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { checkRange, checkSize, checkWritable } from '../device/range.js';
import { DeviceError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { drawSectors } from './crash-model.js';
import type { DiskOperation, Fault, FaultEffect } from './faults.js';
import { never } from './operation.js';
import type { SimulatedDisk } from './simulated-disk.js';

/** What a target holds from the call of a read to its effect. */
const SCRIBBLE = 0xdb;

export class SimulatedDevice implements ResizableDevice {
  readonly name: string;
  readonly writable: boolean;
  readonly #disk: SimulatedDisk;
  readonly #generation: number;
  readonly #life: Lifetime;
  /** Set by a flush that fails, from its call on: those called later wait behind it. */
  #flushFailed: DeviceError | undefined;
  readonly #failuresBefore: number;

  constructor(disk: SimulatedDisk, writable: boolean) {
    this.#disk = disk;
    this.#generation = disk.scheduler.generation;
    this.name = disk.name;
    this.writable = writable;
    this.#failuresBefore = disk.flushFailures;
    this.#life = new Lifetime(this.name);
  }

  get size(): ByteLength {
    return this.#disk.size;
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#life.run(() => {
      const length = target.byteLength;
      checkRange(this, offset, length);
      if (this.#isDead) return never();
      target.fill(SCRIBBLE);
      const fault = this.#strike('read', offset, length);
      return this.#submit('read', offset, length, fault, () => {
        this.#suffer(fault, 'read', offset, length);
        const left = Math.max(0, this.size - offset);
        this.#disk.content.read(offset, target.subarray(0, left));
        // A shrink overtook this read: what it cut off is gone, and zeros is what files show there.
        if (left < length) target.fill(0, left);
      });
    });
  }

  readNow(offset: ByteOffset, target: Uint8Array): boolean {
    this.#life.check();
    checkRange(this, offset, target.byteLength);
    if (this.#isDead || !this.#disk.drawAtOnce()) return false;
    this.#suffer(this.#strike('read', offset, target.byteLength), 'read', offset, target.byteLength);
    this.#disk.content.read(offset, target);
    return true;
  }

  writeNow(offset: ByteOffset, sources: readonly Uint8Array[]): boolean {
    this.#life.check();
    checkWritable(this);
    const length = sources.reduce((sum, source) => sum + source.byteLength, 0);
    checkRange(this, offset, length);
    if (this.#isDead || !this.#disk.drawAtOnce()) return false;
    const { effect, settle } = this.#beginWrite('write', offset, length, [...sources]);
    try {
      effect();
    } finally {
      settle();
    }
    return true;
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#life.run(() => this.#write('write', offset, source.byteLength, [source]));
  }

  writev(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const length = sources.reduce((sum, source) => sum + source.byteLength, 0);
    return this.#life.run(() => this.#write('write', offset, length, [...sources]));
  }

  discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    return this.#life.run(() => this.#write('discard', offset, length, []));
  }

  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    return this.#life.run(() => this.#write('write', offset, length, []));
  }

  /** All of it as of one moment. A device need not know all of its zeros: neither does this one. */
  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const extents: AllocationExtent[] = [];
    await this.#life.run(() => {
      checkRange(this, offset, length);
      if (this.#isDead) return never();
      return this.#submit('allocation', offset, length, undefined, () => {
        extents.push(...this.#disk.zerosWithin(offset, length));
      });
    });
    yield* extents;
  }

  flush(): Promise<void> {
    return this.#life.run(() => {
      if (this.#isDead) return never();
      const { content, faults, random } = this.#disk;
      const point = content.flushPoint();
      const fault = faults.strike('flush', this.name, 0, 0);
      const failed = this.#flushFailed;
      if (failed === undefined && isError(fault))
        this.#flushFailed = this.#error(fault.effect, 'flush', 0, 0);
      return this.#submit('flush', 0, 0, fault, () => {
        if (failed !== undefined) throw failed;
        // Another one failed while this one was under way, maybe another device's: success would promise too much.
        if (this.#disk.flushFailures !== this.#failuresBefore) throw this.#error('EIO', 'flush', 0, 0);
        if (isError(fault)) {
          this.#disk.flushFailures++;
          content.forget(point, (change) => drawSectors(random, change));
          throw this.#flushFailed;
        }
        if (fault?.effect === 'ignore') return;
        if (fault?.effect === 'rot') this.#disk.rotWithin(0, this.size);
        content.makeDurable(point);
        this.#disk.flushed();
      });
    });
  }

  resize(size: ByteLength): Promise<void> {
    return this.#life.run(() => {
      checkWritable(this);
      checkSize(this.name, size);
      if (this.#isDead) return never();
      const { content } = this.#disk;
      const from = Math.min(size, this.size);
      this.#checkOverlap('resize', from, Math.max(size, this.size) - from);
      const change = content.beginResize(size);
      const fault = this.#strike('resize', size, 0);
      const effect = () => {
        this.#suffer(fault, 'resize', size, 0);
        if (fault?.effect === 'ignore') return;
        if (!this.#disk.admits(size - content.size)) throw this.#error('ENOSPC', 'resize', size, 0);
        content.take(change);
        this.#disk.touch();
      };
      return this.#submit('resize', size, 0, fault, effect, () => content.acknowledge(change));
    });
  }

  modifiedAt(): Promise<bigint | undefined> {
    return this.#life.run(async () => this.#disk.modifiedAt);
  }

  setModifiedAt(nanoseconds: bigint): Promise<void> {
    return this.#life.run(async () => {
      if (!this.#isDead) this.#disk.setModifiedAt(nanoseconds);
    });
  }

  close(): Promise<void> {
    return this.#life.close(async () => undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Nothing that an engine of before the crash asks for may happen. */
  get #isDead(): boolean {
    return this.#generation !== this.#disk.scheduler.generation;
  }

  /** @param sources without any, zeros are written. */
  #write(
    kind: 'write' | 'discard',
    offset: ByteOffset,
    length: ByteLength,
    sources: readonly Uint8Array[],
  ): Promise<void> {
    checkWritable(this);
    checkRange(this, offset, length);
    if (this.#isDead) return never();
    const { fault, effect, settle } = this.#beginWrite(kind, offset, length, sources);
    return this.#submit(kind, offset, length, fault, effect, settle);
  }

  /** Begins a write; what happens is up to `effect`, and that it completed, well or badly, to `settle`. */
  #beginWrite(
    kind: 'write' | 'discard',
    offset: ByteOffset,
    length: ByteLength,
    sources: readonly Uint8Array[],
  ) {
    this.#checkOverlap(kind, offset, length);
    const bytes = joined(sources, length);
    const disk = this.#disk;
    const change = disk.content.beginWrite(offset, bytes);
    const fault = this.#strike(kind, offset, length);
    const effect = () => {
      this.#checkSources(kind, offset, sources, bytes);
      if (isError(fault)) {
        disk.content.take(change, drawSectors(disk.random, change));
        disk.touch();
        throw this.#error(fault.effect, kind, offset, length);
      }
      if (fault?.effect === 'ignore') return;
      disk.content.take(change);
      disk.touch();
      disk.faults.rewritten(this.name, offset, length);
      if (fault?.effect === 'rot') disk.rotWithin(offset, length);
    };
    const settle = () => {
      disk.content.acknowledge(change);
      this.#checkSources(kind, offset, sources, bytes);
    };
    return { fault, effect, settle };
  }

  #strike(kind: DiskOperation, offset: ByteOffset, length: ByteLength): Fault | undefined {
    return this.#disk.faults.strike(kind, this.name, offset, length);
  }

  #submit(
    kind: DiskOperation | 'allocation',
    offset: ByteOffset,
    length: ByteLength,
    fault: Fault | undefined,
    effect: () => void,
    settle: () => void = NOTHING,
  ): Promise<void> {
    const delayMicroseconds = fault?.delayMicroseconds ?? 0;
    const target = this.name;
    return this.#disk.scheduler.submit<void>({
      kind,
      target,
      offset,
      length,
      effect,
      settle,
      delayMicroseconds,
    });
  }

  #suffer(fault: Fault | undefined, kind: DiskOperation, offset: ByteOffset, length: ByteLength): void {
    if (isError(fault)) throw this.#error(fault.effect, kind, offset, length);
    if (fault?.effect === 'rot') this.#disk.rotWithin(offset, length);
  }

  #error(code: ErrorCode, kind: DiskOperation, offset: ByteOffset, length: ByteLength): DeviceError {
    const cause = Object.assign(new Error(`${code}: simulated`), { code });
    return new DeviceError(`${this.name}: ${kind} of ${length} bytes at ${offset} failed: ${code}`, {
      cause,
    });
  }

  #checkSources(
    kind: DiskOperation,
    offset: ByteOffset,
    sources: readonly Uint8Array[],
    bytes: Uint8Array,
  ): void {
    let at = 0;
    for (const source of sources) {
      if (!isSame(source, bytes, at)) {
        throw this.#disk.violation(`the source of a ${kind} at ${offset} changed before it completed`);
      }
      at += source.byteLength;
    }
  }

  #checkOverlap(kind: DiskOperation, offset: ByteOffset, length: ByteLength): void {
    if (offset + length <= this.#disk.strictFrom) return;
    const other = this.#disk.content.overlapping(offset, length);
    if (other === undefined) return;
    throw this.#disk.violation(
      `a ${kind} of ${length} bytes at ${offset} overlaps a ${other.kind} in flight ` +
        `(${other.bytes.byteLength} bytes at ${other.offset})`,
    );
  }
}

type ErrorCode = Exclude<FaultEffect, 'ignore' | 'rot' | 'delay'>;

const isError = (fault: Fault | undefined): fault is Fault & { readonly effect: ErrorCode } =>
  fault?.effect === 'EIO' || fault?.effect === 'ENOSPC' || fault?.effect === 'ENODEV';

const NOTHING = (): void => undefined;

function joined(sources: readonly Uint8Array[], length: ByteLength): Uint8Array {
  const [first] = sources;
  // Not `slice`: that of a Buffer is a view.
  if (sources.length === 1 && first !== undefined) return new Uint8Array(first);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const source of sources) {
    bytes.set(source, at);
    at += source.byteLength;
  }
  return bytes;
}

const isSame = (source: Uint8Array, bytes: Uint8Array, at: number): boolean =>
  Buffer.compare(source, bytes.subarray(at, at + source.byteLength)) === 0;
