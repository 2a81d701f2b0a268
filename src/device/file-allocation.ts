/**
 * What a device over a file knows of its zeros: the holes that the file had when somebody first asked, and from then on
 * what the device itself does to it. Nobody else writes: the device owns the file, or shares it with readers only.
 *
 * Until somebody asks nothing is kept. A write is noted before it begins, so no answer is ever wrong, and when it has ended,
 * because what was noted before may have been overtaken (the search for holes began in between). A range that is being zeroed
 * counts as zero once that is done, unless a write touched it meanwhile.
 *
 * All of it changes between awaits only.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import type { AllocationExtent } from './allocation.js';
import { ZeroMap } from './zero-map.js';

/** A range that is being made zero. */
export interface Zeroing {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
  isTouched: boolean;
}

export class FileAllocation {
  readonly #find: () => Promise<ZeroMap | undefined>;
  #known: ZeroMap | undefined;
  /** While holes are searched for: what was written since, in a map that is otherwise zero. */
  #written: ZeroMap | undefined;
  #search: Promise<void> | undefined;
  readonly #zeroings = new Set<Zeroing>();

  /** @param find looks for the holes; `undefined`: nobody can tell */
  constructor(find: () => Promise<ZeroMap | undefined>) {
    this.#find = find;
  }

  /** Resolves when `extentAt` knows what there is to know. @param size of the device, in bytes */
  async ready(size: ByteLength): Promise<void> {
    this.#search ??= this.#searched(size);
    await this.#search;
  }

  async #searched(size: ByteLength): Promise<void> {
    const written = new ZeroMap(size, 'zero');
    this.#written = written;
    const found = (await this.#find()) ?? new ZeroMap(size, 'data');
    if (this.#written !== written) return; // The file has another size now.
    found.addData(written);
    this.#known = found;
    this.#written = undefined;
  }

  /** The longest run of one kind from `offset` on, up to `end`. To be asked after `ready`. */
  extentAt(offset: ByteOffset, end: ByteOffset): AllocationExtent {
    return this.#known?.extentAt(offset, end) ?? { length: end - offset, zero: false };
  }

  /** A write begins, or has ended, well or badly. */
  written(offset: ByteOffset, length: ByteLength): void {
    this.#known?.markData(offset, length);
    this.#written?.markData(offset, length);
    if (this.#zeroings.size > 0) this.#touch(offset, length);
  }

  #touch(offset: ByteOffset, length: ByteLength): void {
    for (const zeroing of this.#zeroings) {
      if (offset < zeroing.offset + zeroing.length && zeroing.offset < offset + length)
        zeroing.isTouched = true;
    }
  }

  /** A range begins to be zeroed; `zeroed` or `abandoned` must follow. */
  zeroing(offset: ByteOffset, length: ByteLength): Zeroing {
    const zeroing = { offset, length, isTouched: false };
    this.#zeroings.add(zeroing);
    return zeroing;
  }

  /** It is zero. */
  zeroed(zeroing: Zeroing): void {
    this.#zeroings.delete(zeroing);
    if (zeroing.isTouched) return;
    this.#known?.markZero(zeroing.offset, zeroing.length);
    this.#written?.markZero(zeroing.offset, zeroing.length);
  }

  /** Zeroing failed. What was zero before is zero still. */
  abandoned(zeroing: Zeroing): void {
    this.#zeroings.delete(zeroing);
  }

  /** The file has got another size: all is forgotten, to be found out anew. */
  resized(): void {
    this.#known = undefined;
    this.#written = undefined;
    this.#search = undefined;
    for (const zeroing of this.#zeroings) zeroing.isTouched = true;
  }
}
