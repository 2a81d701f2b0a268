/** The part of a plan in which snapshots go while they are being read, and while what they had to keep is being overwritten. */
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Cycle, Operation, Range } from './plan.js';

/** The newest of up to ten. */
const NEWEST = 2519;
const LENGTHS = [1, 32, 80];

/** Drawn apart, so that the others stay as they are. @param volumeSize bytes */
export function withDepartures(
  seed: string,
  cycles: readonly Cycle[],
  volumeSize: number,
  always: boolean,
): readonly Cycle[] {
  if (!always) return cycles;
  const random = new SeededRandom(`departures ${seed}`);
  return cycles.map((cycle) => {
    const operations = [...cycle.operations];
    for (let left = random.below(4); left > 0; left--)
      operations.splice(random.below(operations.length + 1), 0, ...drawDeparture(random, volumeSize));
    return { ...cycle, operations, clients: Math.max(cycle.clients, 4) };
  });
}

/** A snapshot is taken, read, deleted and, where it was read, the volume overwritten: with several clients nearly at once. */
function drawDeparture(random: SeededRandom, volumeSize: number): Operation[] {
  const length = Math.min(random.pick(LENGTHS) * 512, volumeSize);
  const range: Range = { offset: random.below((volumeSize - length) / 512 + 1) * 512, length };
  const age = random.chance(0.7) ? NEWEST : random.below(64);
  const near = (): Range => {
    const shift = (random.below(3) - 1) * BLOCK_SIZE;
    return { length, offset: Math.max(0, Math.min(volumeSize - length, range.offset + shift)) };
  };
  const write = (where: Range): Operation => ({ kind: 'write', zeros: false, ...where });
  const read: Operation = { kind: 'read-snapshot', age, ...range };
  return [
    { kind: 'create' },
    ...(random.chance(0.5) ? [write(near())] : []),
    read,
    ...(random.chance(0.5) ? [read] : []),
    { kind: 'delete', age, wait: false },
    write(range),
    ...(random.chance(0.5) ? [write(near()), { kind: 'read-snapshots' } as const] : []),
  ];
}
