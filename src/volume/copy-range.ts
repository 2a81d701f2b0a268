/**
 * Copying within the volume, as a defragmenter does. The newest snapshot notes of each whole block that is copied to a whole block where
 * its content lies besides: overwriting the source then needs no copy.
 *
 * A part at a time, while nothing else writes (as at the moment of a snapshot): the write buffer is plugged and emptied, the gate
 * held. Then in this order: the target's own content is protected; the data copied; the volume flushed; the moves recorded,
 * durably; and only then others may write again, perhaps over a source, which needs no copy now. A crash before
 * that leaves no move, and every source as it was.
 */

import { checkRange } from '../arguments.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { type Move, mayMove } from '../diff-area/moves.js';
import { DeviceError } from '../errors.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, blockOf, roundUp } from '../units.js';
import type { Engine } from './engine.js';

export interface CopyRangeOptions {
  readonly signal?: AbortSignal;
  /** Bytes copied and bytes in all. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

interface Copying {
  readonly from: ByteOffset;
  readonly to: ByteOffset;
  readonly length: ByteLength;
}

/** Bytes that are copied while others wait. */
const PART_BYTES = 256 * BLOCK_SIZE;

/** @throws InvalidArgumentError, ReadOnlyError (the store lies at the target), DeviceError, IntegrityError (while the volume is put back to a snapshot), what `signal` was aborted with */
export async function copyRange(
  engine: Engine,
  range: Copying,
  { signal, onProgress }: CopyRangeOptions,
): Promise<void> {
  checkRange(range.from, range.length, engine.device.size);
  checkRange(range.to, range.length, engine.device.size);
  if (range.from === range.to) return;
  await engine.protectedBlocks?.admit(range.to, range.length);
  let done = 0;
  for (const part of partsOf(range)) {
    signal?.throwIfAborted();
    // Whatever else holds the gate is kept off.
    await engine.reverts.taking.runExclusive(() =>
      whileNothingIsWritten(engine, () => copyPart(engine, part)),
    );
    done += part.length;
    onProgress?.(done, range.length);
  }
}

/** Parts that end at whole blocks of the target; from the end where the target overlaps what is still to be copied. */
function partsOf({ from, to, length }: Copying): Copying[] {
  const parts: Copying[] = [];
  for (let done = 0; done < length; ) {
    const end = Math.min(to + length, roundUp(to + done + 1, BLOCK_SIZE) + PART_BYTES - BLOCK_SIZE);
    parts.push({ from: from + done, to: to + done, length: end - to - done });
    done = end - to;
  }
  return to > from ? parts.reverse() : parts;
}

async function whileNothingIsWritten({ gate, writes }: Engine, action: () => Promise<void>): Promise<void> {
  const failure = writes?.failure ?? gate.failure;
  if (failure !== undefined) throw failure;
  writes?.plug(undefined);
  try {
    await writes?.drained();
    await gate.hold(undefined);
    try {
      await action();
    } finally {
      gate.release();
    }
  } finally {
    writes?.unplug();
  }
}

async function copyPart({ live, device, gate, copyOnWrite }: Engine, part: Copying): Promise<void> {
  const { from, to, length } = part;
  await copyOnWrite.protect(to, length);
  // While the volume is put back to a snapshot, what users see of a block may not be in the volume yet: that is only copied.
  const area = live.putBack === undefined ? copyOnWrite.target : undefined;
  const moves = area === undefined ? [] : movesOf(area, part);
  const data = new Uint8Array(length);
  await live.read(from, data);
  await live.write(to, data);
  if (area === undefined || moves.length === 0) return;
  await device.flush();
  let cause: unknown;
  try {
    await copyOnWrite.commitMoves(area, moves);
  } catch (error) {
    cause = error;
    throw error;
  } finally {
    // Whose a further copy would be, cannot be told.
    if (area.moves.isUnsure && copyOnWrite.target === area)
      gate.shut(
        new DeviceError(
          'the store failed while moves were recorded, and whether it has them cannot be told; writes are refused. Close the volume, mend the store, and open again',
          { cause },
        ),
      );
  }
}

/** Whole blocks that go to whole blocks, as far as the rules permit. */
function movesOf(area: DiffArea, { from, to, length }: Copying): Move[] {
  const found: Move[] = [];
  if ((to - from) % BLOCK_SIZE !== 0) return found;
  const distance = (to - from) / BLOCK_SIZE;
  const end = Math.floor((from + length) / BLOCK_SIZE);
  for (let block: number = blockOf(from + BLOCK_SIZE - 1); block < end; block++) {
    const move: Move = { from: block, to: block + distance };
    if (mayMove(area, move)) found.push(move);
  }
  return found;
}
