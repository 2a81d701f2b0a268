/** What a server tells about the blocks of its export: `NBD_CMD_BLOCK_STATUS`. */
import type { AllocationExtent } from '../../device/allocation.js';
import { DeviceError, UnsupportedError } from '../../errors.js';
import { type ByteLength, type ByteOffset, roundUp } from '../../units.js';
import { COMPACT_EXTENT_MAX, type StatusExtent } from '../wire/block-status.js';
import { AllocationStatus, BASE_ALLOCATION, RequestType } from '../wire/constants.js';
import type { ExportFacts } from './facts.js';
import type { Answer, Command } from './pending.js';

/** Consecutive bytes with one status. */
export interface BlockStatus {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
  /** What it means, says the context. */
  readonly status: number;
}

export class BlockStatusQuery {
  readonly #name: string;
  readonly #facts: ExportFacts;
  readonly #run: (command: Command) => Promise<Answer>;

  /** @param run throws if the server answers with an error */
  constructor(name: string, facts: ExportFacts, run: (command: Command) => Promise<Answer>) {
    this.#name = name;
    this.#facts = facts;
    this.#run = run;
  }

  /** The status of every byte of a range; neighbours differ. @throws UnsupportedError if the context is not told */
  async all(context: string, offset: ByteOffset, length: ByteLength): Promise<BlockStatus[]> {
    const found: BlockStatus[] = [];
    for (let at = offset; at < offset + length; ) {
      for (const { length: part, status } of await this.#from(context, at, offset + length - at)) {
        const last = found.at(-1);
        if (last?.status === status) found[found.length - 1] = { ...last, length: last.length + part };
        else found.push({ offset: at, length: part, status });
        at += part;
      }
    }
    return found;
  }

  /** As `Allocated.allocation` of a device. */
  async *zeros(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    for (let at = offset; at < offset + length; ) {
      for (const { length: part, status } of await this.#from(BASE_ALLOCATION, at, offset + length - at)) {
        yield { length: part, zero: (status & AllocationStatus.zero) !== 0 };
        at += part;
      }
    }
  }

  /** One question: consecutive extents from `offset` on, at least one, none beyond the range. */
  async #from(context: string, offset: ByteOffset, length: ByteLength): Promise<readonly StatusExtent[]> {
    const { contexts, blocks } = this.#facts;
    const id = contexts.get(context);
    if (id === undefined) {
      const known = contexts.size === 0 ? 'none' : [...contexts.keys()].join(', ');
      throw new UnsupportedError(
        `${this.#name} does not tell ${context}; of what was asked for it tells: ${known}`,
      );
    }
    const start = offset - (offset % blocks.minimum);
    const end = roundUp(offset + Math.min(length, COMPACT_EXTENT_MAX - blocks.minimum), blocks.minimum);
    const { statuses } = await this.#run({
      type: RequestType.blockStatus,
      flags: 0,
      offset: start,
      length: end - start,
    });
    const within = cut(statuses.get(id) ?? [], offset - start, length);
    if (within.length > 0) return within;
    throw new DeviceError(`${this.#name}: the server left ${context} out of its answer`);
  }
}

/** The extents without the first `skip` bytes, and `length` bytes at most. */
function cut(extents: readonly StatusExtent[], skip: number, length: ByteLength): StatusExtent[] {
  const parts: StatusExtent[] = [];
  let at = -skip;
  for (const { length: whole, status } of extents) {
    const part = Math.min(at + whole, length) - Math.max(at, 0);
    if (part > 0) parts.push({ length: part, status });
    at += whole;
    if (at >= length) break;
  }
  return parts;
}
