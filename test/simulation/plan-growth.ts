/** The part of a plan in which the volume becomes longer. */
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Cycle, Operation, Plan, Range } from './plan.js';

/** Makes the volume so long, in bytes; now and then less than it has, which is refused. */
export interface GrowthOperation {
  readonly kind: 'grow';
  readonly size: number;
}

/** Sectors of writes near the end. */
const LENGTHS = [1, 8, 32, 33, 64];

/**
 * In some plans the volume grows, and what is done then is done at its end. Drawn apart, so that the others stay as they are.
 * @param faults may devices fail?
 */
export function withGrowth(plan: Plan, always: boolean, faults: boolean): Plan {
  const { seed, layout, volumeSize } = plan;
  const random = new SeededRandom(`growth ${seed}`);
  if (layout !== 'directory' || !(random.chance(0.2) || always)) return plan;
  let size = volumeSize;
  const cycles = plan.cycles.map((cycle): Cycle => {
    const operations = [...cycle.operations];
    const put = (operation: Operation) =>
      operations.splice(random.below(operations.length + 1), 0, operation);
    const more = () => {
      size += random.below(6) * BLOCK_SIZE + random.below(32) * 512;
      return size;
    };
    while (random.chance(0.45)) put({ kind: 'grow', size: random.chance(0.1) ? volumeSize - 512 : more() });
    if (faults && random.chance(0.15)) return { ...cycle, ...drawFailures(random, more(), more()) };
    const from = Math.max(0, volumeSize - 3 * BLOCK_SIZE);
    for (let left = random.below(12); left > 0; left--) put(drawAtEnd(random, from, size));
    return { ...cycle, operations };
  });
  return { ...plan, cycles };
}

/** One growth fails, and another one follows it, or the close. */
function drawFailures(random: SeededRandom, first: number, second: number): Partial<Cycle> {
  const operations: Operation[] = [{ kind: 'grow', size: first }];
  if (random.chance(0.7)) operations.push({ kind: 'grow', size: second });
  const volumeFaults = random.chance(0.6);
  return { operations, clients: 1, faultRate: 0.002, controlFaults: !volumeFaults, volumeFaults };
}

/** It may lie behind the end; then as much is done as there is. */
function drawAtEnd(random: SeededRandom, from: number, size: number): Operation {
  const draw = (): Range => ({
    offset: from + random.below((size - from) / 512) * 512,
    length: (1 + random.below(random.pick(LENGTHS))) * 512,
  });
  const kind = random.pick([
    ...(['write', 'write', 'write', 'write', 'discard', 'zeroes', 'read'] as const),
    ...(['read-snapshot', 'write-snapshot', 'copy-range', 'flush'] as const),
  ]);
  switch (kind) {
    case 'write':
      return { kind, ...draw(), zeros: random.chance(0.1) };
    case 'read-snapshot':
      return { kind, age: random.below(64), ...draw() };
    case 'write-snapshot':
      return { kind, age: random.below(64), ...draw(), zeros: random.chance(0.1) };
    case 'copy-range':
      return { kind, from: draw().offset, ...draw() };
    case 'flush':
      return { kind };
    default:
      return { kind, ...draw() };
  }
}
