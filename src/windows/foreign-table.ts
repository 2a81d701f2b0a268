/**
 * The translation table of one foreign snapshot: block number → where its content lies.
 *
 * Entries are applied in the order stored, and the rules say that a later one counts. So the builder only appends to a
 * log, and `finish` sorts it once by block and keeps the last of each: 12 bytes a block, found by bisection. What
 * depends on earlier entries are moves, overlays and what was moved; those are rare and kept in maps.
 *
 * A place is one number: a device offset, or -1 - target for a block that moved to block `target`.
 *
 * While the volume is written, copies are added (`addCopy`), by the rules that the builder applies. They are kept in a map, which is
 * merged into the sorted numbers when it is large.
 */
import { FormatError } from '../errors.js';
import { hex, type ReadContext } from '../format/binary.js';
import { ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import {
  EntryFlag,
  entryBitmap,
  entryFlags,
  entryOriginalOffset,
  entryPosition,
  entryRelativeOffset,
  entryVolumeOffset,
  isEmptyEntry,
} from '../format/table-block.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset } from '../units.js';
import type { Notes } from './notes.js';
import { stableOrder } from './stable-order.js';

/** Device offset of a copy; or, negative, -1 - the block that the content moved to. */
export type Place = number;

/** Sectors that were written to the snapshot itself. */
export interface Overlay {
  readonly offset: ByteOffset;
  /** Bit i: sector i of the block is stored at sector i from `offset` on. */
  readonly sectors: number;
}

/** Past the end of any device, so that reading it fails. */
const NOWHERE: Place = Number.MAX_SAFE_INTEGER;
const FIRST_CAPACITY = 512;
/** Copies added after which they are merged, unless the table is so large that more make no difference. */
const ADDED_MAX = 4096;

export class ForeignTable {
  #entryCount: number;
  #dataBlocks: number;
  #blocks: Uint32Array;
  #places: Float64Array;
  /** What was added since the table was read, or merged the last time. */
  #added = new Map<BlockNumber, Place>();
  #generation = 0;
  readonly #overlays: ReadonlyMap<BlockNumber, Overlay>;
  readonly #sourceOfTarget: Map<BlockNumber, BlockNumber>;
  readonly #targets: ReadonlySet<BlockNumber>;

  constructor(parts: TableParts) {
    this.#entryCount = parts.entryCount;
    this.#blocks = parts.blocks;
    this.#places = parts.places;
    this.#overlays = parts.overlays;
    this.#sourceOfTarget = parts.sourceOfTarget;
    this.#targets = parts.targets;
    let copies = 0;
    for (const place of parts.places) if (place >= 0) copies++;
    this.#dataBlocks = copies + parts.overlays.size;
  }

  /** Entries of the table as stored, without the empty ones. */
  get entryCount(): number {
    return this.#entryCount;
  }

  /** Blocks of the diff area that hold data. */
  get dataBlocks(): number {
    return this.#dataBlocks;
  }

  /** Changes when something was added: whoever read the volume meanwhile looks again. */
  get generation(): number {
    return this.#generation;
  }

  /** Where the content of `block` lies, or `undefined` when the table does not say. */
  placeOf(block: BlockNumber): Place | undefined {
    const added = this.#added.get(block);
    if (added !== undefined) return added;
    const index = lowerBound(this.#blocks, block as number);
    return this.#blocks[index] === block ? this.#places[index] : undefined;
  }

  overlayOf(block: BlockNumber): Overlay | undefined {
    return this.#overlays.get(block);
  }

  /** Blocks that have an overlay, in no order. */
  overlayBlocks(): Iterable<BlockNumber> {
    return this.#overlays.keys();
  }

  /** Whether a move that still counts has its content in `block`. */
  isMoveTarget(block: BlockNumber): boolean {
    return this.#sourceOfTarget.has(block);
  }

  /** Whether anything has ever moved to `block`. */
  wasMoveTarget(block: BlockNumber): boolean {
    return this.#targets.has(block);
  }

  /**
   * A block that makes moves ambiguous: a target whose source is said to lie elsewhere, or a source whose target counts as another's.
   * Windows writes neither. To a table with one nothing can be added: an entry might go to the wrong block.
   */
  doubtfulMove(): BlockNumber | undefined {
    for (const [target, source] of this.#sourceOfTarget)
      if (this.placeOf(source) !== -1 - (target as number)) return target;
    for (let index = 0; index < this.#blocks.length; index++) {
      const place = this.#places[index] ?? 0;
      if (place < 0 && this.#sourceOfTarget.get(-1 - place) !== this.#blocks[index])
        return this.#blocks[index];
    }
    return undefined;
  }

  /** Applies `entries` ordinary entries for `block`, which share one copy at `offset`: the first ends a move that has its content there. */
  addCopy(block: BlockNumber, offset: ByteOffset, entries: number): void {
    for (let left = entries; left > 0; left--) {
      const owner = this.#sourceOfTarget.get(block) ?? block;
      this.#sourceOfTarget.delete(block);
      this.#added.set(owner, offset);
    }
    this.#entryCount += entries;
    this.#dataBlocks++;
    this.#generation++;
    if (this.#added.size >= Math.max(ADDED_MAX, this.#blocks.length / 4)) this.#merge();
  }

  #merge(): void {
    const added = [...this.#added].sort(([a], [b]) => a - b);
    this.#added = new Map();
    const blocks = new Uint32Array(this.#blocks.length + added.length);
    const places = new Float64Array(blocks.length);
    let from = 0;
    let count = 0;
    const put = (block: number, place: Place) => {
      blocks[count] = block;
      places[count++] = place;
    };
    for (const [block, place] of added) {
      for (; (this.#blocks[from] ?? Infinity) < block; from++)
        put(this.#blocks[from] ?? 0, this.#places[from] ?? 0);
      if (this.#blocks[from] === block) from++;
      put(block, place);
    }
    for (; from < this.#blocks.length; from++) put(this.#blocks[from] ?? 0, this.#places[from] ?? 0);
    this.#blocks = blocks.slice(0, count);
    this.#places = places.slice(0, count);
  }

  /**
   * Blocks that changed while this was the newest snapshot, ascending: those with an entry, and those that something
   * moved to, which have none of their own.
   */
  *changedBlocks(): Iterable<BlockNumber> {
    if (this.#added.size > 0) this.#merge();
    const targets = [...this.#targets].sort((a, b) => a - b);
    let next = 0;
    // As they are now: what is merged meanwhile makes others.
    for (const block of this.#blocks) {
      for (let target = targets[next]; target !== undefined && target <= block; target = targets[++next])
        if (target < block) yield target;
      yield block;
    }
    yield* targets.slice(next);
  }
}

interface TableParts {
  readonly entryCount: number;
  readonly blocks: Uint32Array;
  readonly places: Float64Array;
  readonly overlays: ReadonlyMap<BlockNumber, Overlay>;
  readonly sourceOfTarget: Map<BlockNumber, BlockNumber>;
  readonly targets: ReadonlySet<BlockNumber>;
}

export class ForeignTableBuilder {
  readonly #blockCount: number;
  readonly #notes: Notes;
  #entryCount = 0;
  #logged = 0;
  #blocks = new Uint32Array(FIRST_CAPACITY);
  #places = new Float64Array(FIRST_CAPACITY);
  readonly #overlays = new Map<BlockNumber, Overlay>();
  readonly #sourceOfTarget = new Map<BlockNumber, BlockNumber>();
  readonly #targets = new Set<BlockNumber>();

  /** @param blockCount blocks on the device; an entry for one beyond them is ignored with a note */
  constructor(blockCount: number, notes: Notes) {
    this.#blockCount = blockCount;
    this.#notes = notes;
  }

  /** Applies the entries of one table block. @throws FormatError for a move that also names a copy */
  addBlock(view: DataView, context: ReadContext): void {
    for (let index = 0; index < ENTRIES_PER_TABLE_BLOCK; index++) {
      const at = entryPosition(index);
      if (isEmptyEntry(view, at)) continue;
      this.#entryCount++;
      this.#add(view, at, context);
    }
  }

  #add(view: DataView, at: number, context: ReadContext): void {
    const flags = entryFlags(view, at);
    if ((flags & EntryFlag.unused) !== 0) return;
    const block = this.#blockAt(entryOriginalOffset(view, at));
    if (block === undefined) {
      this.#note(view, at, context, 'which is no block of the volume; ignored');
      return;
    }
    if ((flags & EntryFlag.overlay) !== 0) this.#addOverlay(view, at, block);
    else if ((flags & EntryFlag.move) !== 0) this.#addMove(view, at, block, context);
    else this.#append(this.#ownerOf(block), entryVolumeOffset(view, at));
  }

  /** Later overlays of a block share the data block of the first, whatever they say of their own. */
  #addOverlay(view: DataView, at: number, block: BlockNumber): void {
    const first = this.#overlays.get(block);
    const offset = first?.offset ?? entryVolumeOffset(view, at);
    const sectors = ((first?.sectors ?? 0) | entryBitmap(view, at)) >>> 0;
    this.#overlays.set(block, { offset, sectors });
  }

  #addMove(view: DataView, at: number, from: BlockNumber, context: ReadContext): void {
    const copy = entryVolumeOffset(view, at);
    if (copy !== 0)
      throw new FormatError(
        `block at offset ${hex(context.offset)}: table entry at byte ${at}: volume offset of a move is ${hex(copy)}, must be 0`,
      );
    const target = this.#blockAt(entryRelativeOffset(view, at));
    const source = this.#ownerOf(from);
    if (target === undefined) {
      this.#note(view, at, context, 'moved to no block of the volume; reading it will fail');
      this.#append(source, NOWHERE);
      return;
    }
    // Moved back, or to itself: what is known of the block stays.
    if (target === source) return;
    this.#append(source, -1 - (target as number));
    this.#sourceOfTarget.set(target, source);
    this.#targets.add(target);
  }

  /**
   * The block that an entry for `block` belongs to: content that had moved here is that of the block it came from.
   * The move is spent by that.
   */
  #ownerOf(block: BlockNumber): BlockNumber {
    const source = this.#sourceOfTarget.get(block);
    if (source === undefined) return block;
    this.#sourceOfTarget.delete(block);
    return source;
  }

  #append(block: BlockNumber, place: Place): void {
    if (this.#logged === this.#blocks.length) {
      const blocks = new Uint32Array(this.#logged * 2);
      blocks.set(this.#blocks);
      this.#blocks = blocks;
      const places = new Float64Array(this.#logged * 2);
      places.set(this.#places);
      this.#places = places;
    }
    this.#blocks[this.#logged] = block;
    this.#places[this.#logged] = place;
    this.#logged++;
  }

  #blockAt(offset: ByteOffset): BlockNumber | undefined {
    const block = (offset as number) / BLOCK_SIZE;
    return Number.isInteger(block) && block < this.#blockCount ? block : undefined;
  }

  #note(view: DataView, at: number, context: ReadContext, what: string): void {
    const original = hex(entryOriginalOffset(view, at));
    this.#notes.add(
      `block at offset ${hex(context.offset)}: table entry at byte ${at} is for offset ${original}, ${what}`,
    );
  }

  finish(): ForeignTable {
    const log = this.#blocks.subarray(0, this.#logged);
    const order = stableOrder(log);
    const blocks = new Uint32Array(this.#logged);
    const places = new Float64Array(this.#logged);
    let count = 0;
    for (const index of order) {
      const block = log[index] ?? 0;
      if (count === 0 || blocks[count - 1] !== block) count++;
      blocks[count - 1] = block;
      places[count - 1] = this.#places[index] ?? 0;
    }
    return new ForeignTable({
      entryCount: this.#entryCount,
      blocks: blocks.slice(0, count),
      places: places.slice(0, count),
      overlays: this.#overlays,
      sourceOfTarget: this.#sourceOfTarget,
      targets: this.#targets,
    });
  }
}

/** Index of the first of the ascending `values` that is not below `value`. */
function lowerBound(values: Uint32Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
