/** The part of a plan that is about room: policies, holds, limits, and what the host has. */
import { SPACE_POLICIES, type SpacePolicy } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Cycle, Operation } from './plan.js';

/** What is done about a lack of room. */
export type SpaceOperation =
  | {
      readonly kind: 'policy';
      readonly policy: SpacePolicy;
      readonly waitMs: number;
      readonly afterWait: 'delete-oldest' | 'fail-writes';
    }
  /** A snapshot, by age; without `forMs` until it is released. */
  | { readonly kind: 'hold'; readonly age: number; readonly forMs: number | undefined }
  | { readonly kind: 'release'; readonly age: number }
  /** Directory: how much the host has for the store from now on; 0: as much as is wanted. */
  | { readonly kind: 'host-space'; readonly bytes: number };

/** Bytes of a directory store without a snapshot. */
export const CONTROL_FILE = 10 * BLOCK_SIZE;

/** Some plans are about a lack of room: policies, holds, and what the host has. Drawn apart, so that the others stay as they are. */
export function withSpaceOperations(
  seed: string,
  cycles: readonly Cycle[],
  scarce: number,
  always: boolean,
): readonly Cycle[] {
  const random = new SeededRandom(`space ${seed}`);
  if (!(random.chance(0.35) || always)) return cycles;
  // In some of them the oldest is held, so that a younger one has to go where room is short.
  const holdsOldest = random.chance(0.4);
  return cycles.map((cycle) => {
    const operations = [...cycle.operations];
    if (holdsOldest) {
      operations.splice(random.below(2), 0, { kind: 'hold', age: 0, forMs: undefined });
      operations.splice(random.below(operations.length), 0, { kind: 'limit', maximum: scarce });
      return { ...cycle, operations };
    }
    // A policy that nothing follows changes nothing.
    const count = random.below(2 + Math.floor(operations.length / 6));
    for (let i = 0; i < count; i++)
      operations.splice(random.below(operations.length + 1), 0, drawSpaceOperation(random, scarce));
    return { ...cycle, operations };
  });
}

function drawSpaceOperation(random: SeededRandom, scarce: number): Operation {
  const kind = random.pick([
    'policy',
    'policy',
    'hold',
    'hold',
    'release',
    'release',
    'limit',
    'host-space',
  ] as const);
  switch (kind) {
    case 'policy':
      return {
        kind,
        policy: random.pick(SPACE_POLICIES),
        waitMs: random.pick([1, 20, 3000]),
        afterWait: random.pick(['delete-oldest', 'fail-writes'] as const),
      };
    case 'hold':
      return { kind, age: random.below(64), forMs: random.chance(0.3) ? undefined : 1 + random.below(200) };
    case 'release':
      return { kind, age: random.below(64) };
    case 'limit':
      return { kind, maximum: random.chance(0.3) ? 0 : scarce + random.below(16) * BLOCK_SIZE };
    case 'host-space':
      return { kind, bytes: random.chance(0.3) ? 0 : CONTROL_FILE + scarce + random.below(16) * BLOCK_SIZE };
  }
}
