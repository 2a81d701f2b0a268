/** The part of a plan that is about the write buffer: many changes of the same few sectors at once, and snapshots between them. */
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Cycle, Operation, Plan } from './plan.js';

/** Sectors that a burst goes to; more than two blocks. */
const REACH = 80;
/** Sectors of each change. */
const LENGTHS = [1, 8, 40, 70];

/** Drawn apart, so that the others stay as they are. */
export function withBursts(plan: Plan, always: boolean): Plan {
  if (!always) return plan;
  const random = new SeededRandom(`bursts ${plan.seed}`);
  const cycles = plan.cycles.map((cycle): Cycle => {
    const operations = [...cycle.operations];
    for (let left = 1 + random.below(4); left > 0; left--)
      operations.splice(random.below(operations.length + 1), 0, ...drawBurst(random, plan.volumeSize / 512));
    const limit = random.pick([4, 16, 64, 1024]) * BLOCK_SIZE;
    return {
      ...cycle,
      operations,
      clients: 1 + random.below(random.pick([8, 24])),
      writing: { mode: 'writeback', limit },
      closesAtOnce: random.chance(0.7),
    };
  });
  return { ...plan, cycles };
}

/** After a snapshot each block needs a copy once, and what is written to it waits in the buffer for that. */
function drawBurst(random: SeededRandom, sectors: number): Operation[] {
  const from = random.below(Math.max(1, sectors - REACH));
  const draw = (): Operation => {
    const first = Math.min(from + random.below(REACH), sectors - 1);
    const length = Math.min(1 + random.below(random.pick(LENGTHS)), sectors - first) * 512;
    const offset = first * 512;
    if (random.chance(0.1)) return { kind: random.pick(['discard', 'zeroes'] as const), offset, length };
    return { kind: 'write', offset, length, zeros: false };
  };
  const burst: Operation[] = Array.from({ length: 4 + random.below(16) }, draw);
  if (random.chance(0.5)) burst.splice(random.below(burst.length), 0, { kind: 'create' });
  return [{ kind: 'create' }, ...burst];
}
