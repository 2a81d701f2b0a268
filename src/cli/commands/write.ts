/** `volsnap write`: standard input into a volume, its snapshots kept as they were. */
import type { Command } from 'commander';
import { type ByteLength, type ByteOffset, InvalidArgumentError, type VolumeAccess } from '../../index.js';
import { CHUNK_SIZE } from '../chunks.js';
import { protectedBlocksOption, volumeCommand, type WritingOptions } from '../command.js';
import { readInput } from '../input.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parseSize } from '../size.js';
import { changeVolume } from '../volumes.js';

/** Writes under way at once: enough to keep copying and writing both busy. */
const WRITES_MAX = 4;

interface WriteOptions extends WritingOptions {
  readonly offset: ByteOffset;
}

export const writeCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'write',
    summary: 'copy standard input into a volume',
    details: 'What snapshots still need is copied first. When it is done, everything is on stable storage.',
    examples: ['volsnap write disk.img < new.img', "printf 'hello' | volsnap write disk.img --offset 1M"],
    writes: true,
  })
    .option('--offset <SIZE>', 'where to begin', parseSize, 0)
    .addOption(protectedBlocksOption())
    .action(run(write));

async function write(session: Session, path: string, options: WriteOptions): Promise<undefined> {
  const { offset } = options;
  const length = await changeVolume(session, path, options, async (volume) => {
    if (offset > volume.size) {
      throw new InvalidArgumentError(
        `offset ${offset} does not lie within the ${volume.size} bytes of ${path}`,
      );
    }
    try {
      return await pour(volume, offset, session.signal);
    } finally {
      await volume.flush();
    }
  });
  if (session.json) await session.output.json({ volume: path, offset, length });
  else if (session.output.isTerminal)
    await session.output.print(`${formatSize(length)} written at ${offset}.`);
}

/** @returns how many bytes came */
async function pour(volume: VolumeAccess, offset: ByteOffset, signal: AbortSignal): Promise<ByteLength> {
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
