/**
 * The part of a plan that says where the crash is to come: soon after something has begun that takes several steps, each of
 * which a crash may cut off. Drawn by their number alone, most of these steps would never see one.
 */
import { ENTRIES_PER_TABLE_BLOCK } from '../../src/format/constants.js';
import { SeededRandom } from '../../src/testing/index.js';
import type { Cycle, Operation, Plan } from './plan.js';

export interface Aim {
  /** One of the operations of the cycle. */
  readonly at: Operation;
  /** Steps from its beginning to the crash. */
  readonly steps: number;
}

/** A write that something of several steps comes to, sooner or later. */
export interface WriteAim {
  /** To the control file; or of a further block of a table, with which its link and entries before it are written. */
  readonly of: 'control' | 'next-table-block';
  /** How many come first, at least one. */
  readonly writes: number;
  /** Steps from the last of them to the crash. */
  readonly steps: number;
}

/** Operations that are one step for their caller, and several for what is on disk. */
const KINDS: ReadonlySet<Operation['kind']> = new Set([
  ...(['create', 'delete', 'delete-oldest', 'delete-all', 'revert', 'cancel-revert', 'grow'] as const),
  ...(['copy-range', 'flush-snapshot', 'flush', 'hold', 'release', 'policy', 'limit'] as const),
]);
/** In a copy of the engine whose table blocks are soon full: see `SMALL_BLOCKS`. Else no plan has so many copies. */
const HAS_SHORT_TABLES = ENTRIES_PER_TABLE_BLOCK < 100;
/** More than any cycle takes until it comes to its last operation. */
const STEPS_MAX = 4000;

/** Some of the crashes are aimed. Drawn apart, so that the others stay as they are. @param often are most of them? */
export function withAims(plan: Plan, often: boolean): Plan {
  const random = new SeededRandom(`aims ${plan.seed}`);
  const drawn = random.pick([0, 0, 0.4]);
  const share = often ? 0.6 : drawn;
  const cycles: Cycle[] = [];
  for (const cycle of plan.cycles) {
    const before = cycles.at(-1);
    const { aim, writeAim, end, operations = [] } = before ?? {};
    const done = aim === undefined ? operations : operations.slice(0, operations.indexOf(aim.at) + 1);
    const wasAimed = aim !== undefined || writeAim !== undefined;
    if (wasAimed && end === 'kill' && random.chance(0.6)) cycles.push(cutOffSoon(random, done, cycle));
    else cycles.push(random.chance(share) ? aimed(random, plan, cycle) : cycle);
  }
  return { ...plan, cycles };
}

function aimed(random: SeededRandom, plan: Plan, cycle: Cycle): Cycle {
  const { operations } = cycle;
  if (operations.length === 0 || cycle.rot > 0) return cycle;
  const isRare = (operation: Operation) =>
    operation.kind === 'grow' ||
    (operation.kind === 'write' && plan.inside?.runs.some((run) => meets(run, operation)));
  const rare = operations.filter(isRare);
  const several = operations.filter(({ kind }) => KINDS.has(kind));
  const isOfRare = rare.length > 0 && random.chance(0.6);
  const isOfSeveral = several.length > 0 && random.chance(0.7);
  const at = random.pick(isOfRare ? rare : isOfSeveral ? several : operations);
  const crash = { end: random.pick(['kill', 'power-cut'] as const), steps: STEPS_MAX };
  if (HAS_SHORT_TABLES && random.chance(0.5)) {
    const [writes, steps] = [1 + random.below(2), random.below(4)];
    return { ...cycle, ...crash, end: 'power-cut', writeAim: { of: 'next-table-block', writes, steps } };
  }
  if (!isOfRare && random.chance(0.4)) {
    const writes = 1 + random.below(random.pick([2, 6, 16]));
    const steps = random.below(random.pick([3, 12, 30]));
    return { ...cycle, ...crash, writeAim: { of: 'control', writes, steps } };
  }
  return {
    ...cycle,
    ...crash,
    // The fewer others do something, the more of the steps are of this.
    clients: isOfRare && random.chance(0.7) ? 1 : cycle.clients,
    aim: { at, steps: random.below(random.pick(isOfRare ? [6, 10, 30] : [10, 30, 90])) },
  };
}

/**
 * What a killed process left need not be durable: the power goes while it is found, or soon afterwards. Mostly somebody does
 * again then what was cut off.
 * @param done what had begun when the process was killed
 */
function cutOffSoon(random: SeededRandom, done: readonly Operation[], cycle: Cycle): Cycle {
  if (cycle.rot > 0) return cycle;
  const steps = random.below(random.pick([10, 60, 160]));
  const { late: _, ...rest } = cycle;
  if (random.chance(0.3)) return { ...rest, crashesWhileOpening: [{ steps, end: 'power-cut' }] };
  if (random.chance(0.5)) return { ...rest, end: 'power-cut', steps };
  const again = done.slice(-4).filter(({ kind }) => kind !== 'create');
  const operations: Operation[] = [...again, { kind: 'flush' }];
  return { ...rest, operations, end: 'power-cut', steps };
}

const meets = (
  a: { readonly offset: number; readonly length: number },
  b: { readonly offset: number; readonly length: number },
): boolean => Math.min(a.offset + a.length, b.offset + b.length) > Math.max(a.offset, b.offset);
