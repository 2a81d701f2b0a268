/**
 * A disk that outlives the engine: content with a volatile cache in front, faults, and a record of broken rules.
 *
 * The engine sees it through a `SimulatedDevice`, one for each `open`. A crash ends all devices opened before: what
 * they still ask for never happens and never returns. See `cached-content.ts` for what a crash keeps.
 */

import type { AllocationExtent } from '../device/allocation.js';
import { isZeros } from '../device/zeros.js';
import { AssertionError } from '../errors.js';
import { type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import { CachedContent } from './cached-content.js';
import { type CrashModel, drawChoices } from './crash-model.js';
import type { Change, SectorChoice } from './durable-bytes.js';
import { FaultPlan } from './faults.js';
import type { Scheduler } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import { SimulatedDevice } from './simulated-device.js';

/** What is looked at together for zeros, in bytes. */
const ZERO_UNIT = 4096;
/** Share of them that the disk does not know. */
const UNKNOWN_ZEROS = 0.1;

export interface SimulatedDiskOptions {
  readonly name?: string;
  /** Bytes. Default 0. */
  readonly size?: ByteLength;
  readonly scheduler: Scheduler;
  /** Decides what a failing write or flush leaves behind, and noise. Default: seeded by the name. */
  readonly random?: SeededRandom;
  readonly faults?: FaultPlan;
  /** Bytes never written are random instead of zero, as between the files of a volume. Growth is zeros all the same. */
  readonly noise?: boolean;
  /**
   * Overlapping writes in flight together are a broken rule, as for a store; else they have no order. A number: from that
   * offset on, where a store lies behind the volume.
   */
  readonly strictOverlap?: boolean | ByteOffset;
  /** Reads and writes are sometimes done at the call (`readNow`, `writeNow`), as by a device whose content is in memory. */
  readonly atOnce?: boolean;
  /** May the disk grow by so much? `false` is ENOSPC. */
  readonly admits?: (growth: ByteLength) => boolean;
}

/** A time in milliseconds, and how many changes it was given to before: nanoseconds, as they are never that many. */
interface Modified {
  readonly milliseconds: number;
  readonly changes: number;
}

/** All that a disk holds, to go back to later; good until it is saved again. */
export interface SavedDisk {
  readonly content: CachedContent;
  readonly modified: readonly [Modified, Modified];
}

export class SimulatedDisk {
  readonly name: string;
  readonly scheduler: Scheduler;
  readonly faults: FaultPlan;
  /** From where on overlapping writes are a broken rule. */
  readonly strictFrom: ByteOffset;
  readonly random: SeededRandom;
  /** Rules of the device contract that its user broke. Empty, or the user has a bug. */
  readonly violations: string[] = [];
  /** Flushes that failed; a device opened before the last of them never flushes again. */
  flushFailures = 0;
  #content: CachedContent;
  readonly #admits: (growth: ByteLength) => boolean;
  /** Decides what is done at once; `undefined`: nothing. */
  readonly #atOnce: SeededRandom | undefined;
  #modified: Modified = { milliseconds: 0, changes: 0 };
  #durableModified = this.#modified;

  constructor(options: SimulatedDiskOptions) {
    this.name = options.name ?? 'disk';
    this.scheduler = options.scheduler;
    this.random = options.random ?? new SeededRandom(this.name);
    this.faults = options.faults ?? new FaultPlan(this.random);
    const { strictOverlap = false } = options;
    this.strictFrom = typeof strictOverlap === 'number' ? strictOverlap : strictOverlap ? 0 : Infinity;
    this.#admits = options.admits ?? (() => true);
    this.#atOnce = options.atOnce ? this.random.fork('at once') : undefined;
    this.#content = new CachedContent(
      options.size ?? 0,
      options.noise ? this.random.fork('noise') : undefined,
    );
  }

  /** A device on this disk, until the next crash. What failed flushes forgot is lost by it, for all devices. */
  open({ writable = true }: { writable?: boolean } = {}): SimulatedDevice {
    this.content.dropForgotten();
    return new SimulatedDevice(this, writable);
  }

  /** Whether the next read or write that could be done at once is. */
  drawAtOnce(): boolean {
    return this.#atOnce?.chance(0.5) ?? false;
  }

  get size(): ByteLength {
    return this.content.size;
  }

  get content(): CachedContent {
    return this.#content;
  }

  /** What reads would see now, past all scheduling and faults. */
  peek(offset: ByteOffset = 0, length: ByteLength = this.size - offset): Uint8Array {
    const bytes = new Uint8Array(length);
    this.content.read(offset, bytes);
    return bytes;
  }

  /** Which parts of the range are zeros now, in units of 4 KiB, but for some that the disk keeps to itself. */
  zerosWithin(offset: ByteOffset, length: ByteLength): AllocationExtent[] {
    const bytes = this.content.view(offset, Math.max(offset, Math.min(offset + length, this.size)));
    const extents: AllocationExtent[] = [];
    for (let at = 0; at < length; ) {
      const end = Math.min(length, at + ZERO_UNIT - ((offset + at) % ZERO_UNIT));
      const isZero = isZeros(bytes.subarray(at, end));
      extents.push({ length: end - at, zero: isZero && !this.random.chance(UNKNOWN_ZEROS) });
      at = end;
    }
    return extents;
  }

  /** Ends the world of the engine with everything on this disk that a crash of this kind loses. */
  crash(random: SeededRandom, model: CrashModel): void {
    this.crashWith(model, drawChoices(random));
    if (model === 'power-cut' && random.chance(0.5)) this.loseTime();
  }

  /** The same with chosen losses: `choose` is asked for every change of `content.unflushed()`, in that order. */
  crashWith(model: CrashModel, choose: (change: Readonly<Change>) => SectorChoice): void {
    if (model === 'kill') this.content.kill(choose);
    else this.content.cutPower(choose);
  }

  /** Content was last changed when what is durable was: a power cut may lose the time of later changes, also of some that it keeps. */
  loseTime(): void {
    this.#modified = this.#durableModified;
  }

  /** A bit flips, in the cache as on the medium. */
  rot(offset: ByteOffset, bit: number): void {
    this.content.flipBit(offset, bit);
  }

  /** Flips one random bit within the range. */
  rotWithin(offset: ByteOffset, length: ByteLength): void {
    const end = Math.min(offset + length, this.size);
    if (offset < end) this.rot(offset + this.random.below(end - offset), this.random.below(8));
  }

  admits(growth: ByteLength): boolean {
    return growth <= 0 || this.#admits(growth);
  }

  get modifiedAt(): bigint {
    return BigInt(this.#modified.milliseconds) * 1_000_000n + BigInt(this.#modified.changes);
  }

  /** Says that content was last changed then, durably. */
  setModifiedAt(nanoseconds: bigint): void {
    this.#modified = {
      milliseconds: Number(nanoseconds / 1_000_000n),
      changes: Number(nanoseconds % 1_000_000n),
    };
    this.#durableModified = this.#modified;
  }

  /** Content changed now. Never the same moment twice, as a clock of nanoseconds would show. */
  touch(): void {
    const now = this.scheduler.clock.now();
    const { milliseconds, changes } = this.#modified;
    this.#modified =
      now > milliseconds ? { milliseconds: now, changes: 0 } : { milliseconds, changes: changes + 1 };
  }

  /** What was changed is durable, with the time of it. */
  flushed(): void {
    this.#durableModified = this.#modified;
  }

  /** Notes a broken rule; the result is to be thrown. */
  violation(message: string): AssertionError {
    const text = `${this.name}: ${message} (step ${this.scheduler.steps})`;
    this.violations.push(text);
    return new AssertionError(text);
  }

  save(): SavedDisk {
    return { content: this.content.copy(), modified: [this.#modified, this.#durableModified] };
  }

  /** Back to a saved state; a crash must follow before the disk is opened. */
  restore(saved: SavedDisk): void {
    this.#content = saved.content.copy();
    [this.#modified, this.#durableModified] = saved.modified;
  }
}

/** Sectors of a change, as numbers of the disk: what a chosen crash decides about. A resize counts as one. */
export function sectorsOf(change: Readonly<Change>): readonly number[] {
  if (change.kind === 'resize') return [0];
  const first = Math.floor(change.offset / SECTOR_SIZE);
  const end = Math.ceil((change.offset + change.bytes.byteLength) / SECTOR_SIZE);
  return Array.from({ length: end - first }, (_, index) => first + index);
}
