/**
 * Adds entries to the end of a table that Windows wrote.
 *
 * The last block of the chain is kept in memory. Entries go behind its last one; when it is full the chain goes on in a new block.
 * A group of entries reaches the device in two steps, with a flush after each:
 *   1. `fresh`: new table blocks, whole, which nothing leads to yet (together with the copies themselves)
 *   2. `linked`: the changed sectors of the block that was the last, the link to the new one among them
 * So what a reader comes to is a whole block whose copies are durable. Sectors of the second step may get there in any order, or not:
 * each holds whole entries, those that count only together lie in one, and what was in it before is written again as it was.
 */
import { assert } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { encodeHeader, headerOf, setNextOffset } from '../format/block-header.js';
import { BlockType, ENTRY_SIZE, HEADER_SIZE } from '../format/constants.js';
import { entryPosition, writeOrdinaryEntry } from '../format/table-block.js';
import { endOfEntries, placeInOneSector, roomFrom, sectorOfEntry } from '../format/table-placement.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset, offsetOfBlock, SECTOR_SIZE } from '../units.js';
import type { FreeSlot } from './free-slots.js';
import type { TableEnd } from './store-layout.js';

export interface PlacedBytes {
  readonly offset: ByteOffset;
  readonly bytes: Uint8Array;
}

/** What a group of entries has to write, in this order. */
export interface TableWrites {
  readonly fresh: readonly PlacedBytes[];
  readonly linked: readonly PlacedBytes[];
}

interface OpenBlock {
  readonly offset: ByteOffset;
  readonly bytes: Uint8Array;
  /** Is it on the device, as a part of the chain? */
  readonly isLinked: boolean;
  /** Index behind the last entry. */
  end: number;
  /** Bytes `[from, to)` that changed, in whole sectors. */
  changed: { from: number; to: number } | undefined;
}

/** Entries that a new block takes for certain. */
const ROOM_OF_NEW_BLOCK = roomFrom(0);

export class TableWriter {
  #last: OpenBlock;
  /** Changed since the last `written`, in the order of the chain. */
  #open: OpenBlock[] = [];

  constructor({ offset, bytes }: TableEnd) {
    this.#last = {
      offset,
      bytes: bytes.slice(),
      isLinked: true,
      end: endOfEntries(viewOf(bytes)),
      changed: undefined,
    };
  }

  /** How many new table blocks `entries` more entries may take. */
  blocksFor(entries: number): number {
    return Math.ceil(Math.max(0, entries - roomFrom(this.#last.end)) / ROOM_OF_NEW_BLOCK);
  }

  /** Adds `count` equal entries for a copy of `block`, in one sector. @param nextSlot gives a free one, for a table block */
  append(block: BlockNumber, copy: FreeSlot, count: number, nextSlot: () => FreeSlot): void {
    let index = placeInOneSector(this.#last.end, count);
    if (index === undefined) {
      this.#goOnIn(nextSlot());
      index = 0;
    }
    const { bytes } = this.#last;
    const view = viewOf(bytes);
    const { fileOffset, volumeOffset } = copy;
    for (let at = index; at < index + count; at++)
      writeOrdinaryEntry(view, entryPosition(at), offsetOfBlock(block), fileOffset, volumeOffset, 0, 0);
    this.#last.end = index + count;
    this.#touch(sectorOfEntry(index), entryPosition(index + count - 1) + ENTRY_SIZE);
  }

  /** The chain goes on in a new block at `slot`. */
  #goOnIn({ fileOffset, volumeOffset }: FreeSlot): void {
    setNextOffset(this.#last.bytes, volumeOffset);
    this.#touch(0, HEADER_SIZE);
    const bytes = new Uint8Array(BLOCK_SIZE);
    encodeHeader(
      bytes,
      headerOf(BlockType.table, { fileOffset, volumeOffset, nextOffset: 0, epoch: undefined }),
    );
    this.#last = { offset: volumeOffset, bytes, isLinked: false, end: 0, changed: undefined };
  }

  #touch(from: number, to: number): void {
    const { changed } = this.#last;
    if (changed === undefined) this.#open.push(this.#last);
    this.#last.changed = {
      from: Math.min(changed?.from ?? from, from),
      to: Math.max(changed?.to ?? 0, Math.ceil(to / SECTOR_SIZE) * SECTOR_SIZE),
    };
  }

  /** What is not on the device yet. */
  pending(): TableWrites {
    const fresh: PlacedBytes[] = [];
    const linked: PlacedBytes[] = [];
    for (const { offset, bytes, isLinked, changed } of this.#open) {
      assert(changed !== undefined, () => `table block at ${offset} is open and has not changed`);
      if (isLinked)
        linked.push({ offset: offset + changed.from, bytes: bytes.subarray(changed.from, changed.to) });
      else fresh.push({ offset, bytes });
    }
    return { fresh, linked };
  }

  /** All that was pending is durable. */
  written(): void {
    const { offset, bytes, end } = this.#last;
    this.#open = [];
    this.#last = { offset, bytes, isLinked: true, end, changed: undefined };
  }
}
