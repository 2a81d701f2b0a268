/**
 * Test data that describes itself, so that a wrong sector says what it is instead of only that it is wrong.
 *
 * Sector, 512 bytes LE: 0 u32 magic | 4 u32 volume | 8 u32 sector | 12 u32 sequence of the write
 *                       16..507 filler, a function of those | 508 u32 checksum of bytes 0..507
 * The checksum is FNV-1a over words. It stands against accidents only, and costs a tenth of a CRC at this size.
 */
import { type ByteOffset, SECTOR_SIZE } from '../units.js';

const MAGIC = 0x56534c54;
const WORDS = SECTOR_SIZE / 4;

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
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  for (let at = 0; at < target.byteLength; at += SECTOR_SIZE) {
    const sector = (offset + at) / SECTOR_SIZE;
    let hash = 0x811c9dc5;
    let word = Math.imul(sector + 1, 0x9e3779b1) ^ Math.imul(sequence + 1, 0x85ebca6b) ^ volume;
    for (let index = 0; index < WORDS - 1; index++) {
      word = Math.imul(word, 0x19660d) + 0x3c6ef35f;
      const value =
        index > 3 ? word : index === 0 ? MAGIC : index === 1 ? volume : index === 2 ? sector : sequence;
      view.setUint32(at + index * 4, value, true);
      hash = Math.imul(hash ^ value, 0x01000193);
    }
    view.setUint32(at + SECTOR_SIZE - 4, hash, true);
  }
  return target;
}

/** Reads what a sector says about itself: all zeros, a stamp, or neither. */
export function readStamp(bytes: Uint8Array): Stamp | 'zeros' | 'corrupt' {
  if (bytes.every((byte) => byte === 0)) return 'zeros';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength !== SECTOR_SIZE || view.getUint32(0, true) !== MAGIC) return 'corrupt';
  let hash = 0x811c9dc5;
  for (let index = 0; index < WORDS - 1; index++) {
    hash = Math.imul(hash ^ view.getUint32(index * 4, true), 0x01000193);
  }
  if (view.getUint32(SECTOR_SIZE - 4, true) !== hash >>> 0) return 'corrupt';
  return {
    volume: view.getUint32(4, true),
    sector: view.getUint32(8, true),
    sequence: view.getUint32(12, true),
  };
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
