/**
 * The part of a plan in which the store lies inside the volume, in runs of a file.
 *
 * Such a volume is much longer than others, because a store needs so many blocks, and most of what is drawn would lie in the store. So a plan is drawn for
 * what is left, and moved apart where the runs come in. Only what lies across their edges touches them then, as far as that is wanted.
 */
import { LOCATIONS_PER_BLOCK } from '../../src/format/constants.js';
import type { VolumeOptions } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Cycle, Operation, Plan, Range } from './plan.js';

type Policy = NonNullable<VolumeOptions['onProtectedWrite']>;

export const PROTECTED_POLICIES: readonly Policy[] = ['reject', 'drop', 'drop'];

export interface InsidePlan {
  /** Whole blocks, in ascending order. */
  readonly runs: readonly Range[];
  /** What a write there does. */
  readonly policy: Policy;
}

/** Blocks that a store begins with, in one run, and the least that it has in all. */
export const NEEDED_BLOCKS = 12;
const BLOCKS_MIN = NEEDED_BLOCKS + 64;
const RUNS_MAX = 4;
/** So many that their list has two sectors, also when some of them have been left. */
export const MANY_RUNS = 20;
/** Larger volumes would take too long. */
const OTHER_BLOCKS_MAX = 40;

/** The run that the store begins in. */
export function firstRun({ runs }: InsidePlan): Range {
  const run = runs.find(({ length }) => length >= NEEDED_BLOCKS * BLOCK_SIZE);
  if (run === undefined) throw new Error('no run is long enough for a store');
  return run;
}

/** Bytes of the store. */
export const bytesOf = ({ runs }: InsidePlan): number => runs.reduce((sum, { length }) => sum + length, 0);

/** Drawn apart, so that the others stay as they are. */
export function withInside(plan: Plan, always: boolean, policies: readonly Policy[]): Plan {
  const { seed, layout, volumeSize } = plan;
  const random = new SeededRandom(`inside ${seed}`);
  const blocks = Math.floor(volumeSize / BLOCK_SIZE);
  const isDrawn = random.chance(0.1) || always;
  if (layout !== 'in-volume' || blocks > OTHER_BLOCKS_MAX || !isDrawn) return plan;
  const inside = drawRuns(random, blocks, policies, always ? 0.7 : 0.3);
  const mapping = new Mapping(random, inside, always);
  const crashes = random.chance(0.4) ? 1 + random.below(4) : 0;
  return {
    ...plan,
    inside,
    volumeSize: volumeSize + bytesOf(inside),
    noise: false,
    crashesWhileInitializing: Array.from({ length: crashes }, () => random.below(60)),
    cycles: plan.cycles.map((cycle) => mapping.cycle(cycle)),
  };
}

/** @param blocks what the volume has besides, at least one @param many share of those with many runs, as far as they fit */
export function drawRuns(
  random: SeededRandom,
  blocks: number,
  policies: readonly Policy[] = PROTECTED_POLICIES,
  many = 0.3,
): InsidePlan {
  const total = BLOCKS_MIN + random.below(24);
  // One block lists them: of small ones, few.
  const isMany = blocks >= MANY_RUNS && LOCATIONS_PER_BLOCK >= 2 * MANY_RUNS && random.chance(many);
  const few = 1 + random.below(Math.min(RUNS_MAX, blocks, LOCATIONS_PER_BLOCK));
  const count = isMany ? MANY_RUNS : few;
  const longest = isMany ? 3 : NEEDED_BLOCKS + 8;
  const others = Array.from({ length: count - 1 }, () => 1 + random.below(longest));
  const rest = total - others.reduce((sum, length) => sum + length, 0);
  const lengths = others.toSpliced(random.below(count), 0, rest);
  const gaps = lengths.map(() => 1 + random.below(Math.max(1, Math.floor((blocks - 1) / count))));
  const runs: Range[] = [];
  let at = 0;
  for (const [index, length] of lengths.entries()) {
    at += gaps[index] ?? 1;
    runs.push({ offset: at * BLOCK_SIZE, length: length * BLOCK_SIZE });
    at += length;
  }
  return { runs, policy: random.pick(policies) };
}

/** Moves what was drawn for a volume without the runs. */
export class Mapping {
  readonly #random: SeededRandom;
  readonly #inside: InsidePlan;
  /** Share of writes across an edge that stay so. */
  readonly #share: number;
  /** Share of cycles in which something writes into a run. */
  readonly #overShare: number;

  constructor(random: SeededRandom, inside: InsidePlan, often = false) {
    this.#random = random;
    this.#inside = inside;
    // Each of them costs all snapshots there are.
    this.#share = inside.policy === 'drop' ? 0.04 : 0.4;
    this.#overShare = often ? 0.7 : 2 * this.#share;
  }

  cycle(cycle: Cycle): Cycle {
    const random = this.#random;
    const operations = cycle.operations.map((operation) => this.operation(operation));
    if (random.chance(this.#overShare))
      operations.splice(random.below(operations.length + 1), 0, this.drawOver());
    if (random.chance(0.3)) operations.splice(random.below(operations.length + 1), 0, this.#drawClearing());
    return { ...cycle, operations };
  }

  /** A write into one of the runs. */
  drawOver(): Operation {
    const random = this.#random;
    const { runs } = this.#inside;
    const [lowest] = runs;
    const run = lowest !== undefined && random.chance(0.5) ? lowest : random.pick(runs);
    // Diff areas begin in the lowest run, behind what the store cannot do without.
    const needed = run === firstRun(this.#inside) ? NEEDED_BLOCKS * BLOCK_SIZE : 0;
    const reach = random.chance(0.6) ? Math.min(run.length, needed + 12 * BLOCK_SIZE) : run.length;
    const from = random.chance(0.7) && needed < reach ? needed : 0;
    const offset = run.offset + from + random.below((reach - from) / 512) * 512;
    const length = (1 + random.below(random.pick([1, 40, 100]))) * 512;
    return { kind: 'write', offset, length, zeros: random.chance(0.1) };
  }

  /** Makes zero what lies around a run, which is zero already. */
  #drawClearing(): Operation {
    const random = this.#random;
    const { offset, length } = random.pick(this.#inside.runs);
    const kind = random.pick(['discard', 'zeroes'] as const);
    const before = random.below(40) * 512;
    return { kind, offset: offset - Math.min(before, offset), length: length + before };
  }

  operation(operation: Operation): Operation {
    switch (operation.kind) {
      case 'write':
        return { ...operation, ...this.#written(operation) };
      case 'copy-range':
        return { ...operation, from: this.#at(operation.from), ...this.#written(operation) };
      case 'discard':
      case 'zeroes':
      case 'read':
      case 'read-snapshot':
      case 'write-snapshot': {
        const offset = this.#at(operation.offset);
        return { ...operation, offset, length: this.#at(operation.offset + operation.length) - offset };
      }
      default:
        return operation;
    }
  }

  #at(offset: number): number {
    let at = offset;
    for (const run of this.#inside.runs) if (run.offset <= at) at += run.length;
    return at;
  }

  /** Mostly it ends where a run begins. */
  #written({ offset, length }: Range): Range {
    const at = this.#at(offset);
    const next = this.#inside.runs.find((run) => run.offset > at && run.offset < at + length);
    const isCut = next !== undefined && !this.#random.chance(this.#share);
    return { offset: at, length: isCut ? next.offset - at : length };
  }
}
