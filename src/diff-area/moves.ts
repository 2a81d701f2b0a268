/**
 * Moves of one snapshot: blocks whose content now lies at another block of the volume, where it was copied within the volume.
 *
 * A move is live until its target is overwritten; what is copied of the target then is the entry of the source, which spends the move.
 * The target has an ordinary entry of its own before anything moves there, so a second one can only be meant for the source. When the
 * content moves on, the entry says from where to where, and means the block that it came from at first: chains collapse.
 *
 * The rules are those of research into libvshadow (docs/format.md). What is doubtful there is never written: see `mayMove`.
 * About 150 bytes of memory for each live move; defragmenting a volume makes thousands, not millions.
 */
import { EntryFlag, type TableEntry } from '../format/table-block.js';
import { type BlockNumber, offsetOfBlock } from '../units.js';
import type { BlockTable } from './block-table.js';
import { firstFrom } from './paged-blocks.js';
import { BLOCKS_PER_PAGE } from './presence.js';
import type { UncommittedCopies } from './uncommitted.js';
import type { UnusedBlocks } from './unused-blocks.js';

/** From where to where content is copied. */
export interface Move {
  readonly from: BlockNumber;
  readonly to: BlockNumber;
}

export class Moves {
  /** By pages of the volume, the target of each source. */
  readonly #targets = new Map<number, Map<BlockNumber, BlockNumber>>();
  /** Its keys, ascending; not known until asked for, nor once a page came or went. */
  #pages: readonly number[] | undefined;
  readonly #sources = new Map<BlockNumber, BlockNumber>();
  /** By block, those whose entries copies of it were: nobody can tell that from the entries alone. */
  readonly #spent = new Map<BlockNumber, readonly BlockNumber[]>();
  #size = 0;
  #isBarred = false;
  #isUnsure = false;
  /** Were moves spent by copies that may not be durable? */
  isInDoubt = false;

  /** May no moves come any more? */
  get isBarred(): boolean {
    return this.#isBarred;
  }

  /** From now on no moves come. */
  bar(): void {
    this.#isBarred = true;
  }

  /** Live moves. */
  get size(): number {
    return this.#size;
  }

  /** Does content of no block lie at another one? */
  get isEmpty(): boolean {
    return this.#size === 0 && this.#sources.size === 0;
  }

  /** May there be moves on the device that do not count here? */
  get isUnsure(): boolean {
    return this.#isUnsure;
  }

  /** Is it empty, durably? */
  get isSettled(): boolean {
    return this.isEmpty && !this.isInDoubt;
  }

  /** Some of the moves, at most `count`: those in doubt too, each from the block that the content is of. */
  some(count: number): Move[] {
    const found: Move[] = [];
    for (const [to, from] of this.#sources) {
      if (found.length === count) break;
      found.push({ from, to });
    }
    return found;
  }

  /** Where the content of `block` lies, if it has moved. */
  targetOf(block: BlockNumber): BlockNumber | undefined {
    if (this.#size === 0) return undefined;
    return this.#targets.get(pageOf(block))?.get(block);
  }

  /** The block whose content lies at `block`. */
  sourceOf(block: BlockNumber): BlockNumber | undefined {
    return this.#sources.get(block);
  }

  /** Blocks at which content of others lies, or may lie. */
  targets(): Iterable<BlockNumber> {
    return this.#sources.keys();
  }

  /** All live moves, in no order. */
  *all(): Generator<Move> {
    for (const page of this.#targets.values()) for (const [from, to] of page) yield { from, to };
  }

  add({ from, to }: Move): void {
    const source = this.#sources.get(from) ?? from;
    this.#sources.delete(from);
    let page = this.#targets.get(pageOf(source));
    if (page === undefined) {
      page = new Map();
      this.#targets.set(pageOf(source), page);
      this.#pages = undefined;
    }
    if (!page.has(source)) this.#size++;
    page.set(source, to);
    this.#sources.set(to, source);
  }

  /** The move may be on the device or not: its target is kept for its source, but the source is not safe there. */
  addInDoubt({ from, to }: Move): void {
    this.#sources.set(to, this.#sources.get(from) ?? from);
    this.#isUnsure = true;
  }

  /** The block that a copy of `block`, made now, is the entry of. A move that this spends is over. */
  ownerOfCopy(block: BlockNumber): BlockNumber {
    // Nearly always; there are millions of copies.
    if (this.isEmpty) return block;
    const source = this.#sources.get(block);
    if (source !== undefined) {
      this.#sources.delete(block);
      this.#spent.set(block, [...(this.#spent.get(block) ?? []), source]);
    }
    const owner = source ?? block;
    const page = this.#size === 0 ? undefined : this.#targets.get(pageOf(owner));
    if (page?.delete(owner) === true) this.#size--;
    if (page?.size === 0) {
      this.#targets.delete(pageOf(owner));
      this.#pages = undefined;
    }
    return owner;
  }

  /** Blocks other than `block` that copies of it are the entries of. */
  ownersOfCopies(block: BlockNumber): readonly BlockNumber[] {
    return this.#spent.get(block) ?? NONE;
  }

  /** As `BlockTable` has it, of the sources. */
  hasPage(page: number): boolean {
    return this.#targets.has(page);
  }

  /** As `BlockTable` has it, of the sources. */
  pageFrom(page: number): number | undefined {
    this.#pages ??= [...this.#targets.keys()].sort((left, right) => left - right);
    return firstFrom(this.#pages, page);
  }

  /** Clears, in a bitmap of one page, the bits of the targets. */
  takePresence(page: number, bitmap: Uint32Array): void {
    for (const block of this.#sources.keys()) {
      const bit = block - page * BLOCKS_PER_PAGE;
      if (pageOf(block) === page) bitmap[bit >>> 5] = (bitmap[bit >>> 5] ?? 0) & ~(1 << (bit & 31));
    }
  }

  /** As `BlockTable` has it, of the sources. */
  addPresence(page: number, bitmap: Uint32Array): void {
    for (const block of this.#targets.get(page)?.keys() ?? []) {
      const bit = block - page * BLOCKS_PER_PAGE;
      bitmap[bit >>> 5] = (bitmap[bit >>> 5] ?? 0) | (1 << (bit & 31));
    }
  }
}

const NONE: readonly BlockNumber[] = [];

const pageOf = (block: BlockNumber): number => Math.floor(block / BLOCKS_PER_PAGE);

/** What a diff area has, and skips. */
interface Ground {
  readonly table: BlockTable;
  readonly moves: Moves;
  readonly unused: UnusedBlocks | undefined;
  readonly uncommitted: UncommittedCopies;
}

/**
 * May content that is copied within the volume become a move? The target must have been protected before. Not if the source has an entry
 * already (though its commit failed), or is skipped; not back to where it came from; and never to or from block 0, of which other readers see the start block.
 */
export function mayMove({ table, moves, unused, uncommitted }: Ground, { from, to }: Move): boolean {
  if (from === 0 || to === 0 || from === to) return false;
  if (uncommitted.has(from) || uncommitted.has(to)) return false;
  if (from >= table.blockCount || to >= table.blockCount) return false;
  if (!table.has(to) || moves.sourceOf(to) !== undefined || moves.targetOf(to) !== undefined) return false;
  const source = moves.sourceOf(from);
  if (source !== undefined) return source !== to && moves.targetOf(source) === from;
  if (unused?.has(from) === true) return false;
  return !table.has(from) && moves.targetOf(from) === undefined;
}

export const moveEntry = ({ from, to }: Move): TableEntry => ({
  originalOffset: offsetOfBlock(from),
  relativeOffset: offsetOfBlock(to),
  volumeOffset: 0,
  flags: EntryFlag.move,
  bitmap: 0,
});
