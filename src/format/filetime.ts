/**
 * FILETIME: 100-nanosecond ticks since 1601-01-01 UTC in an unsigned 64-bit number, here a `bigint`.
 */

const TICKS_PER_MILLISECOND = 10_000n;
/** 1970-01-01 UTC. */
const UNIX_EPOCH_TICKS = 116_444_736_000_000_000n;

/** The tick at `milliseconds` since 1970 (a fraction is dropped). */
export const filetimeFromMilliseconds = (milliseconds: number): bigint =>
  BigInt(Math.floor(milliseconds)) * TICKS_PER_MILLISECOND + UNIX_EPOCH_TICKS;

/** The last whole millisecond since 1970 that is not after `ticks`; negative before 1970. */
export function millisecondsFromFiletime(ticks: bigint): number {
  const sinceEpoch = ticks - UNIX_EPOCH_TICKS;
  const whole = sinceEpoch / TICKS_PER_MILLISECOND;
  // BigInt division rounds towards zero, which is up for times before 1970.
  return Number(sinceEpoch % TICKS_PER_MILLISECOND < 0n ? whole - 1n : whole);
}
