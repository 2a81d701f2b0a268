/** Big-endian 64-bit numbers in `Buffer`s, without bigints. */

const WORD = 0x1_0000_0000;

/** The number at `at`; above 2^53 - 1 it is not exact, so compare with a limit before use. */
export const readUInt64 = (bytes: Buffer, at: number): number =>
  bytes.readUInt32BE(at) * WORD + bytes.readUInt32BE(at + 4);

/** Writes a safe integer. */
export function writeUInt64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / WORD), at);
  bytes.writeUInt32BE(value % WORD, at + 4);
}

/** A cookie: 64 bits that only their sender understands, as two words so that no bigint is made for each request. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** The number that two words make; above 2^53 - 1 it is not exact. */
export const fromWords = (high: number, low: number): number => high * WORD + low;

/** The words of a safe integer. */
export const highWord = (value: number): number => Math.floor(value / WORD);
export const lowWord = (value: number): number => value % WORD;
