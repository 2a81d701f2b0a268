/**
 * Reads the metadata blocks of a foreign store, whose links are not to be trusted.
 *
 * Invariant: every chain ends. A chain that comes back to one of its blocks is an error, and all chains together may
 * have no more blocks than fit on the device twice, so that chains sharing their blocks cannot multiply the work.
 */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError } from '../errors.js';
import { hex, type ReadContext } from '../format/binary.js';
import type { BlockHeader } from '../format/block-header.js';
import { BLOCK_TYPE_NAMES, type MetadataBlockType } from '../format/constants.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import type { Notes } from './notes.js';

/** Takes apart one block; what it returns says where the chain goes on. */
export type BlockVisitor = (block: Uint8Array, context: ReadContext) => BlockHeader;

export class MetadataReader {
  readonly #device: BlockDevice;
  readonly #notes: Notes;
  #budget: number;

  constructor(device: BlockDevice, notes: Notes) {
    this.#device = device;
    this.#notes = notes;
    this.#budget = 2 * Math.ceil(device.size / BLOCK_SIZE);
  }

  /**
   * Hands every block of the chain from `first` on to `visit`, in order. The buffer is used again for the next block.
   * @returns number of blocks; none when `first` is 0
   * @throws FormatError for a link past the end or back into the chain, and what `visit` throws
   */
  async readChain(first: ByteOffset, type: MetadataBlockType, visit: BlockVisitor): Promise<number> {
    const name = BLOCK_TYPE_NAMES[type];
    const visited = new Set<ByteOffset>();
    const block = new Uint8Array(BLOCK_SIZE);
    let offset = first;
    let from = '';
    while (offset !== 0) {
      if (visited.has(offset))
        throw new FormatError(`${name} at offset ${hex(offset)} follows itself: its chain is a cycle`);
      visited.add(offset);
      if (this.#budget-- <= 0)
        throw new FormatError(
          `${name} at offset ${hex(offset)}: the chains of this store have more blocks than the device; they share or repeat them`,
        );
      if (offset > this.#device.size - BLOCK_SIZE)
        throw new FormatError(
          `${name} at offset ${hex(offset)}${from} does not lie within the device of ${this.#device.size} bytes`,
        );
      await this.#device.read(offset, block);
      const header = visit(block, { offset });
      if (header.volumeOffset !== offset)
        this.#notes.add(`${name} at offset ${hex(offset)} says it lies at ${hex(header.volumeOffset)}`);
      from = `, linked from ${hex(offset)},`;
      offset = header.nextOffset;
    }
    return visited.size;
  }
}
