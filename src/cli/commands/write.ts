/** `volsnap write`: standard input into a volume, its snapshots kept as they were; or into a snapshot that may be written. */
import type { Command } from 'commander';
import {
  type ByteLength,
  type ByteOffset,
  InvalidArgumentError,
  type Snapshot,
  type VolumeAccess,
} from '../../index.js';
import { CHUNK_SIZE } from '../chunks.js';
import { protectedBlocksOption, volumeCommand, type WritingOptions } from '../command.js';
import { readInput } from '../input.js';
import { parseSource } from '../places.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parseSize } from '../size.js';
import { changeVolume, sourceIn } from '../volumes.js';

/** Writes under way at once: enough to keep copying and writing both busy. */
const WRITES_MAX = 4;

interface WriteOptions extends WritingOptions {
  readonly offset: ByteOffset;
}

export const writeCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'write',
    snapshots: true,
    summary: 'copy standard input into a volume, or VOLUME@ID of a writable snapshot',
    details:
      'What snapshots still need is copied first. What is written to a snapshot shows nowhere else. When it is done, everything is on stable storage.',
    examples: [
      'volsnap write disk.img < new.img',
      "printf 'hello' | volsnap write disk.img --offset 1M",
      "printf 'hello' | volsnap write disk.img@1a2b3c4d --offset 1M",
    ],
    writes: true,
  })
    .option('--offset <SIZE>', 'where to begin', parseSize, 0)
    .addOption(protectedBlocksOption())
    .action(run(write));

async function write(session: Session, target: string, options: WriteOptions): Promise<undefined> {
  const { offset } = options;
  const place = await parseSource(target);
  const length = await changeVolume(session, place.path, options, async (volume) => {
    const into = sourceIn(volume, place);
    if (offset > into.size) {
      throw new InvalidArgumentError(
        `offset ${offset} does not lie within the ${into.size} bytes of ${target}`,
      );
    }
    try {
      return await pour(into, offset, session.signal);
    } finally {
      await into.flush();
    }
  });
  if (session.json) await session.output.json({ volume: place.path, snapshot: place.id, offset, length });
  else if (session.output.isTerminal)
    await session.output.print(`${formatSize(length)} written at ${offset}.`);
}

/** @returns how many bytes came */
async function pour(
  volume: VolumeAccess | Snapshot,
  offset: ByteOffset,
  signal: AbortSignal,
): Promise<ByteLength> {
  const writes = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let at = offset;
  try {
    for await (const data of readInput({ offset, chunkSize: CHUNK_SIZE, signal })) {
      const room = volume.size - at;
      const fitting = data.byteLength > room ? data.subarray(0, room) : data;
      const writing: Promise<void> = volume
        .write(at, fitting)
        .catch((error) => void failures.push(error))
        .finally(() => writes.delete(writing));
      writes.add(writing);
      at += fitting.byteLength;
      if (fitting !== data) {
        throw new InvalidArgumentError(
          `the input is longer than the volume: its first ${at - offset} bytes were written, up to the end at ${volume.size}`,
        );
      }
      if (writes.size >= WRITES_MAX) await Promise.race(writes);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(writes);
  }
  if (failures.length > 0) throw failures[0];
  return at - offset;
}
