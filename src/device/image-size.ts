/** How many bytes a raw image or a block special file holds. */
import type { BigIntStats } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { UnsupportedError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';

/** The unit of `size` in sysfs, in bytes, whatever the sectors of the disk are. */
const SYSFS_UNIT = 512;

/**
 * @param stats of the open file
 * @param holdsByte whether a byte can be read at an offset
 * @throws UnsupportedError for what is longer than offsets can say
 */
export async function imageSize(
  stats: BigIntStats,
  holdsByte: (offset: ByteOffset) => Promise<boolean>,
): Promise<ByteLength> {
  if (!stats.isBlockDevice()) return countable(stats.size);
  // stat reports a block special file as empty, and Node.js has neither lseek nor ioctl.
  return (await sizeFromSysfs(stats.rdev)) ?? sizeByReading(holdsByte);
}

/** Only a file that is a hole for the most part is so long that its offsets are no safe integers. */
function countable(size: bigint): ByteLength {
  if (size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
  throw new UnsupportedError(
    `a file of ${size} bytes is too long: volsnap counts to ${Number.MAX_SAFE_INTEGER}`,
  );
}

async function sizeFromSysfs(device: bigint): Promise<ByteLength | undefined> {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  try {
    const units = Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, 'ascii'));
    return Number.isSafeInteger(units) ? units * SYSFS_UNIT : undefined;
  } catch {
    return undefined; // No sysfs here, as in some containers: the device itself can still tell.
  }
}

/** Finds the end in about a hundred reads of one byte: doubles until past it, then bisects. */
export async function sizeByReading(
  holdsByte: (offset: ByteOffset) => Promise<boolean>,
): Promise<ByteLength> {
  let low = 0; // Every byte before it can be read.
  let high = 1;
  while (await holdsByte(high - 1)) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const middle = low + Math.floor((high - low) / 2);
    if (await holdsByte(middle - 1)) low = middle;
    else high = middle;
  }
  return low;
}
