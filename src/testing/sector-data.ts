/**
 * Test data that describes itself, so that a wrong sector says what it is instead of only that it is wrong.
 *
 * Sector, 128 words of 32 bits in the byte order of the machine (it never leaves the process):
 *   0 magic | 1 volume | 2 sector | 3 sequence of the write | 4 hash of words 0..3 | 5.. noise, xor that hash
 * As the noise is fixed, every bit of a sector follows from words 1 to 3: it is checked against all of it, not by a CRC.
 */
import { isZeros } from '../device/zeros.js';
import { type ByteOffset, SECTOR_SIZE } from '../units.js';
import { SeededRandom } from './seeded-random.js';

const MAGIC = 0x56534c54;
const WORDS = SECTOR_SIZE / 4;
const HEADER_WORDS = 5;
const NOISE = new Uint32Array(WORDS);
new SeededRandom('sector data').fill(new Uint8Array(NOISE.buffer));
/** Where one sector is put together. */
const words = new Uint32Array(WORDS);
const wordBytes = new Uint8Array(words.buffer);

/** What a sector says about itself. */
export interface Stamp {
  readonly volume: number;
  /** Number of the sector on its volume. */
  readonly sector: number;
  /** Number of the write it comes from. */
  readonly sequence: number;
}

/** Fills whole sectors that are about to be written at `offset` by the write `sequence`. */
export function stampSectors(
  target: Uint8Array,
  offset: ByteOffset,
  sequence: number,
  volume = 0,
): Uint8Array {
  for (let at = 0; at < target.byteLength; at += SECTOR_SIZE) {
    compose({ volume, sector: (offset + at) / SECTOR_SIZE, sequence });
    target.set(wordBytes, at);
  }
  return target;
}

function compose({ volume, sector, sequence }: Stamp): void {
  words[0] = MAGIC;
  words[1] = volume;
  words[2] = sector;
  words[3] = sequence;
  let hash = Math.imul(volume + 1, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 15) ^ sector, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13) ^ sequence, 0xc2b2ae35);
  hash ^= hash >>> 16;
  words[4] = hash;
  for (let index = HEADER_WORDS; index < WORDS; index++) words[index] = (NOISE[index] ?? 0) ^ hash;
}

/** Reads what a sector says about itself: all zeros, a stamp, or neither. */
export function readStamp(bytes: Uint8Array): Stamp | 'zeros' | 'corrupt' {
  if (isZeros(bytes)) return 'zeros';
  if (bytes.byteLength !== SECTOR_SIZE) return 'corrupt';
  const [, volume = 0, sector = 0, sequence = 0] = new Uint32Array(new Uint8Array(bytes).buffer);
  const stamp: Stamp = { volume, sector, sequence };
  compose(stamp);
  return Buffer.compare(bytes, wordBytes) === 0 ? stamp : 'corrupt';
}

/** Says what is wrong with a sector that holds none of the allowed values. */
export function explainSector(sector: number, actual: Uint8Array, allowed: readonly Uint8Array[]): string {
  const found = readStamp(actual);
  const stamps = allowed.map(readStamp);
  const wanted = [...new Set(stamps.map(describeStamp))].join(' or ');
  return `sector ${sector} is ${verdict(sector, found, stamps)}: it holds ${describeStamp(found)}, allowed: ${wanted}`;
}

function verdict(
  sector: number,
  found: ReturnType<typeof readStamp>,
  allowed: readonly ReturnType<typeof readStamp>[],
): string {
  if (found === 'corrupt') return 'corrupt';
  if (found === 'zeros') return 'empty';
  const stamps = allowed.filter((stamp): stamp is Stamp => typeof stamp === 'object');
  const volume = stamps[0]?.volume;
  if (found.sector !== sector || (volume !== undefined && volume !== found.volume)) return 'misplaced';
  const sequences = stamps.map((stamp) => stamp.sequence);
  if (found.sequence > Math.max(...sequences)) return 'too new';
  if (found.sequence < Math.min(...sequences)) return 'too old';
  return 'wrong';
}

function describeStamp(stamp: ReturnType<typeof readStamp>): string {
  if (stamp === 'zeros') return 'zeros';
  if (stamp === 'corrupt') return 'unknown bytes';
  return `sector ${stamp.sector} of volume ${stamp.volume} as of write ${stamp.sequence}`;
}
