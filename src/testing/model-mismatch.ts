/** How the oracle says what is wrong. */
import { type ByteOffset, SECTOR_SIZE } from '../units.js';
import { explainSector } from './sector-data.js';

/** The engine showed something that no right engine can show. */
export class ModelMismatch extends Error {
  override readonly name = 'ModelMismatch';
}

const EXPLAINED_MAX = 8;

/** @throws ModelMismatch if anything is wrong; of a lot only the first are told */
export function report(wrong: readonly string[]): void {
  if (wrong.length === 0) return;
  const rest = wrong.length > EXPLAINED_MAX ? [`and ${wrong.length - EXPLAINED_MAX} more`] : [];
  throw new ModelMismatch([...wrong.slice(0, EXPLAINED_MAX), ...rest].join('\n'));
}

/** Holds sectors of the volume, of which `actual` was read at `offset`, against what they may be. @throws ModelMismatch */
export function checkSectors(
  sectors: Iterable<number>,
  offset: ByteOffset,
  actual: Uint8Array,
  allowedIn: (sector: number) => readonly Uint8Array[],
): void {
  const wrong: string[] = [];
  for (const sector of sectors) {
    const at = sector * SECTOR_SIZE - offset;
    const found = actual.subarray(at, at + SECTOR_SIZE);
    const allowed = allowedIn(sector);
    if (allowed.some((bytes) => Buffer.compare(bytes, found) === 0)) continue;
    wrong.push(`volume: ${explainSector(sector, found, allowed)}`);
  }
  report(wrong);
}
