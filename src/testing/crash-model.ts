/**
 * How a crash decides what is kept.
 *
 * The models permit any subset of sectors. Choosing each by a fair coin would nearly never keep a write of 32
 * sectors whole, and the dangerous states are those in which some writes are whole and others are gone; so each change draws
 * a manner first, and now and then the whole crash keeps, or loses, everything.
 */
import { SECTOR_SIZE } from '../units.js';
import { type Change, KEEP_ALL, KEEP_NONE, type SectorChoice } from './durable-bytes.js';
import type { SeededRandom } from './seeded-random.js';

/**
 * - `power-cut`: everything not flushed is kept or lost sector by sector
 * - `kill`: the process died; only what was in flight is kept or lost sector by sector
 */
export type CrashModel = 'power-cut' | 'kill';

/** Draws, for each change of one crash, which of its sectors are kept. */
export function drawChoices(random: SeededRandom): (change: Readonly<Change>) => SectorChoice {
  const mood = random.below(10);
  if (mood === 0) return () => KEEP_ALL;
  if (mood === 1) return () => KEEP_NONE;
  return (change) => drawSectors(random, change);
}

/** Draws which sectors of one change are kept. */
export function drawSectors(random: SeededRandom, change: Readonly<Change>): SectorChoice {
  const first = Math.floor(change.offset / SECTOR_SIZE);
  const last = Math.max(first, Math.ceil((change.offset + change.bytes.byteLength) / SECTOR_SIZE) - 1);
  if (change.kind === 'resize') return random.chance(0.5) ? KEEP_ALL : KEEP_NONE;
  switch (random.below(8)) {
    case 0:
    case 1:
      return KEEP_ALL;
    case 2:
    case 3:
      return KEEP_NONE;
    case 4: {
      const odd = random.between(first, last);
      return (sector) => sector !== odd;
    }
    case 5: {
      const only = random.between(first, last);
      return (sector) => sector === only;
    }
    case 6: {
      const border = random.between(first, last);
      const isHead = random.chance(0.5);
      return (sector) => sector < border === isHead;
    }
    default:
      return () => random.chance(0.5);
  }
}
