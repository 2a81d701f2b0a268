/**
 * Reading a snapshot: for each block its own copy, or zeros if it is skipped as unused; else that of the next newer snapshot,
 * and so on, else the volume.
 *
 * Each table is asked once for a whole part of up to 1 MiB. What lies together is read together; where neighbours lie in
 * different files each is a request of its own, so a request has to cost little: what the device reads at once takes no promise,
 * other requests run side by side. While the copies of one part are verified the next part is being read.
 *
 * Race-free against writers without a lock: a copy is published before its block is overwritten, so a block that was
 * read from the volume is right if no table has it after the read. If one has, it is read again from there.
 */
import type { BlockDevice } from '../device/block-device.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { assert, VolumeChangedError } from '../errors.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
  type Slot,
} from '../units.js';
import type { CopyRun, ThreadReads } from './thread-reads.js';

/** Blocks of one part. */
const PART_BLOCKS = 64;

/** Which bytes of a part are to be read: those that were read from the volume already only if they have a copy by now. */
type Which = 'all' | 'copies';

/** In place of the number of a diff area: the block has moved, and `Sources.moved` tells where to. */
const MOVED = 0xffff;

/** A block of a diff area, or of the volume if there is none. */
interface Place {
  readonly area: DiffArea | undefined;
  readonly slot: Slot;
  readonly block: BlockNumber;
}

/** Where blocks lie: for each one its slot and its diff area, counted from 1; 0: in the volume. */
interface Sources {
  readonly areas: readonly DiffArea[];
  readonly slots: Uint32Array;
  readonly owners: Uint16Array;
  /** How many are in the volume, where they always were. */
  readonly inVolume: number;
  /** By number of the block. */
  readonly moved: ReadonlyMap<BlockNumber, Place> | undefined;
}

/** A run that can be read here as well. */
interface AreaRun extends CopyRun {
  readonly area: DiffArea;
}

/**
 * Fills `target` with the snapshot's bytes from `offset`.
 * @param areas gives the diff areas of the snapshot itself and of all newer ones, in order of age; asked again after
 *   each read of the volume, because a snapshot may have been taken meanwhile
 * @param apart may read copies in another thread
 * @throws IntegrityError, DeviceError
 */
export async function readSnapshot(
  areas: () => readonly DiffArea[],
  volume: BlockDevice,
  offset: ByteOffset,
  target: Uint8Array,
  apart?: ThreadReads,
): Promise<void> {
  await new Reading(areas, volume, offset, target, apart).run();
}

class Reading {
  readonly #areas: () => readonly DiffArea[];
  readonly #volume: BlockDevice;
  readonly #offset: ByteOffset;
  readonly #target: Uint8Array;
  readonly #apart: ThreadReads | undefined;
  /** Requests not known to be done. They never reject: what fails is in `#failure`. */
  #requests: Promise<void>[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(
    areas: () => readonly DiffArea[],
    volume: BlockDevice,
    offset: ByteOffset,
    target: Uint8Array,
    apart: ThreadReads | undefined,
  ) {
    this.#areas = areas;
    this.#volume = volume;
    this.#offset = offset;
    this.#target = target;
    this.#apart = apart;
  }

  async run(): Promise<void> {
    const end = this.#offset + this.#target.byteLength;
    let until: ByteOffset;
    for (let at = this.#offset; at < end && this.#failure === undefined; at = until) {
      until = Math.min(end, offsetOfBlock(blockOf(at) + PART_BLOCKS));
      const earlier = this.#requests;
      this.#requests = [];
      this.#start(at, until, 'all');
      if (earlier.length > 0) await Promise.all(earlier);
    }
    // Also after a failure: the target is in use until then. Requests may have started others.
    while (this.#requests.length > 0) await Promise.all(this.#requests.splice(0));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Reads bytes `start` up to `end`, at once or by requests that it starts. */
  #start(start: ByteOffset, end: ByteOffset, which: Which): void {
    try {
      const first = blockOf(start);
      const sources = find(this.#areas(), first, blockOf(end - 1) + 1 - first);
      this.#startRuns(sources, first, start, end, which);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #startRuns(sources: Sources, first: BlockNumber, start: ByteOffset, end: ByteOffset, which: Which): void {
    const { areas, slots, owners, inVolume, moved } = sources;
    const count = slots.length;
    if (which === 'copies' && inVolume === count) return;
    // A block that is wanted in part is read by itself.
    const firstWhole = start === offsetOfBlock(first) ? 0 : 1;
    const endOfWhole = end === offsetOfBlock(first + count) ? count : count - 1;
    const copies: AreaRun[] = [];
    for (let from = 0, to: number; from < count; from = to) {
      const owner = owners[from] ?? 0;
      const area = areas[owner - 1];
      const slot = slots[from] ?? 0;
      const limit =
        owner === MOVED
          ? from + 1
          : area === undefined
            ? count
            : from < firstWhole
              ? from + 1
              : Math.max(from + 1, endOfWhole);
      to = from + 1;
      while (to < limit && owners[to] === owner) {
        if (area !== undefined && !area.canReadTogether(slot, slots[to] ?? 0, to - from)) break;
        to++;
      }
      const runStart = Math.max(start, offsetOfBlock(first + from));
      const runEnd = Math.min(end, offsetOfBlock(first + to));
      if (owner === MOVED) this.#readMoved(moved?.get(first + from), runStart, runEnd);
      else if (area === undefined) {
        if (which === 'all') this.#readFromVolume(runStart, runEnd);
      } else if (slot !== FixedSlot.zeros && firstWhole <= from && to <= endOfWhole) {
        copies.push({ area, block: first + from, slot, target: this.#part(runStart, runEnd) });
      } else this.#readFromArea(area, slot, runStart, runEnd);
    }
    this.#readCopies(copies);
  }

  /** The thread begins at one end, what it does not take is read here, from the other end on. */
  #readCopies(runs: readonly AreaRun[]): void {
    for (let from = 0, end = runs.length; from < end; ) {
      const batch = this.#apart?.begin(runs, from, end);
      if (batch === undefined) {
        this.#readHere(runs, --end, end + 1);
        continue;
      }
      const first = from;
      from = batch.end;
      this.#add(batch.done.then((isDone) => (isDone ? undefined : this.#readHere(runs, first, batch.end))));
    }
  }

  #readHere(runs: readonly AreaRun[], from: number, end: number): void {
    for (const { area, block, slot, target } of runs.slice(from, end))
      this.#readRun(area, block, slot, target);
  }

  #readRun(area: DiffArea, block: BlockNumber, slot: Slot, target: Uint8Array): void {
    if (!area.copies.readNow(block, slot, target)) this.#add(area.copies.read(block, slot, target));
  }

  #readFromVolume(start: ByteOffset, end: ByteOffset): void {
    const volume = this.#volume;
    if (end > volume.size) {
      throw new VolumeChangedError(
        `${volume.name} was cut to ${volume.size} bytes; bytes ${start} to ${end} of the snapshot are lost`,
      );
    }
    const part = this.#part(start, end);
    // At once: since the tables were asked, nothing else has run.
    if (volume.readNow?.(start, part) === true) return;
    this.#add(volume.read(start, part).then(() => this.#start(start, end, 'copies')));
  }

  /** Of one block that has moved. */
  #readMoved(place: Place | undefined, start: ByteOffset, end: ByteOffset): void {
    assert(place !== undefined, () => `block ${blockOf(start)} has moved to no place`);
    if (place.area !== undefined) {
      this.#readFromArea(place.area, place.slot, start, end, place.block);
      return;
    }
    const at = start + offsetOfBlock(place.block) - offsetOfBlock(blockOf(start));
    const part = this.#part(start, end);
    if (this.#volume.readNow?.(at, part) === true) return;
    this.#add(this.#volume.read(at, part).then(() => this.#checkMoved(place.block, start, end)));
  }

  /** The target may have been overwritten meanwhile: then the block has a copy now, or has moved on. */
  #checkMoved(target: BlockNumber, start: ByteOffset, end: ByteOffset): void {
    const block = blockOf(start);
    const now = find(this.#areas(), block, 1).moved?.get(block);
    if (now === undefined || now.area !== undefined || now.block !== target) this.#start(start, end, 'all');
  }

  /**
   * Checksums cover whole blocks, so a block that is wanted in part is read whole.
   * @param block the one that the diff area has; another one than is wanted if that moved
   */
  #readFromArea(
    area: DiffArea,
    slot: Slot,
    start: ByteOffset,
    end: ByteOffset,
    block = blockOf(start),
  ): void {
    const part = this.#part(start, end);
    const skip = start - offsetOfBlock(blockOf(start));
    if (skip === 0 && part.byteLength % BLOCK_SIZE === 0) {
      this.#readRun(area, block, slot, part);
      return;
    }
    const whole = new Uint8Array(BLOCK_SIZE);
    const take = () => part.set(whole.subarray(skip, skip + part.byteLength));
    if (area.copies.readNow(block, slot, whole)) take();
    else this.#add(area.copies.read(block, slot, whole).then(take));
  }

  #add(request: Promise<void>): void {
    this.#requests.push(
      request.catch((error: unknown) => {
        this.#failure ??= { error };
      }),
    );
  }

  #part(start: ByteOffset, end: ByteOffset): Uint8Array {
    return this.#target.subarray(start - this.#offset, end - this.#offset);
  }
}

/** @param areas oldest first: the oldest one that has a block decides */
function find(areas: readonly DiffArea[], first: BlockNumber, count: number): Sources {
  const slots = new Uint32Array(count);
  const owners = new Uint16Array(count);
  let inVolume = count;
  let moved: Map<BlockNumber, Place> | undefined;
  for (let i = 0; i < areas.length && inVolume > 0; i++) {
    inVolume -= areas[i]?.collect(first, slots, owners, i + 1) ?? 0;
    const moves = areas[i]?.moves;
    if (moves === undefined || moves.size === 0) continue;
    for (let at = 0; at < count; at++) {
      const target = owners[at] === 0 ? moves.targetOf(first + at) : undefined;
      if (target === undefined) continue;
      owners[at] = MOVED;
      inVolume--;
      moved ??= new Map();
      moved.set(first + at, placeOf(areas, i + 1, target));
    }
  }
  return { areas, slots, owners, inVolume, moved };
}

/** Where the diff areas from number `from` on have `block`. */
function placeOf(areas: readonly DiffArea[], from: number, block: BlockNumber): Place {
  for (let i = from; i < areas.length; i++) {
    const area = areas[i];
    const slot = area?.table.slotOf(block) ?? -1;
    if (area !== undefined && slot !== -1) return { area, slot, block };
    if (area?.unused?.has(block) === true) return { area, slot: FixedSlot.zeros, block };
    block = area?.moves.targetOf(block) ?? block;
  }
  return { area: undefined, slot: 0, block };
}
