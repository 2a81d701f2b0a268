/** The newest shadow copy as the place where copies go: its table, its free slots, and what of them is spoken for. */
import { NoSpaceError } from '../errors.js';
import { BLOCK_SIZE } from '../units.js';
import type { ForeignTable } from './foreign-table.js';
import type { FreeSlots } from './free-slots.js';
import type { NeededBlocks } from './needed-blocks.js';
import type { TableWriter } from './table-writer.js';

export interface CopyTargetParts {
  /** What messages call the volume. */
  readonly name: string;
  readonly table: ForeignTable;
  readonly writer: TableWriter;
  readonly slots: FreeSlots;
  readonly needs: NeededBlocks;
}

export class CopyTarget {
  readonly name: string;
  readonly table: ForeignTable;
  readonly writer: TableWriter;
  readonly slots: FreeSlots;
  readonly needs: NeededBlocks;
  /** For copies that are on their way. */
  #blocks = 0;
  #entries = 0;

  constructor({ name, table, writer, slots, needs }: CopyTargetParts) {
    this.name = name;
    this.table = table;
    this.writer = writer;
    this.slots = slots;
    this.needs = needs;
  }

  /**
   * Keeps room for copies, and for the table blocks that their entries may take, so that whoever is let in is not refused half way.
   * @returns why there is none; then nothing is kept
   */
  reserve(blocks: number, entries: number): NoSpaceError | undefined {
    const wanted = this.#blocks + blocks;
    if (wanted + this.writer.blocksFor(this.#entries + entries) > this.slots.count)
      return new NoSpaceError(
        `no room for ${blocks} more ${blocks === 1 ? 'copy' : 'copies'} of 16 KiB in the newest shadow copy of ${this.name}: ${this.freeBytes} bytes of its store are free. The write was refused, and nothing is lost`,
      );
    this.#blocks = wanted;
    this.#entries += entries;
    return undefined;
  }

  /** They have their slots now, or need none. */
  release(blocks: number, entries: number): void {
    this.#blocks -= blocks;
    this.#entries -= entries;
  }

  /** Bytes that nobody has spoken for. */
  get freeBytes(): number {
    return Math.max(0, this.slots.count - this.#blocks) * BLOCK_SIZE;
  }
}
