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

export interface InsidePlan {
  /** Whole blocks, in ascending order. */
  readonly runs: readonly Range[];
  /** What a write there does. */
  readonly policy: NonNullable<VolumeOptions['onProtectedWrite']>;
}

/** Blocks that a store begins with, in one run, and the least that it has in all. */
export const NEEDED_BLOCKS = 12;
const BLOCKS_MIN = NEEDED_BLOCKS + 64;
const RUNS_MAX = 4;
/** Larger volumes would take too long. */
const OTHER_BLOCKS_MAX = 40;

/** The run that the store begins in. */
export function firstRun({ runs }: InsidePlan): Range {
  const run = runs.find(({ length }) => length >= NEEDED_BLOCKS * BLOCK_SIZE);
  if (run === undefined) throw new Error('no run is long enough for a store');
  return run;
}

/** Drawn apart, so that the others stay as they are. */
export function withInside(plan: Plan, always: boolean): Plan {
  const { seed, layout, volumeSize } = plan;
  const random = new SeededRandom(`inside ${seed}`);
  const blocks = Math.floor(volumeSize / BLOCK_SIZE);
  const isDrawn = random.chance(0.1) || always;
  if (layout !== 'in-volume' || blocks > OTHER_BLOCKS_MAX || !isDrawn) return plan;
  const inside = drawRuns(random, blocks);
  const mapping = new Mapping(random, inside);
  const total = inside.runs.reduce((sum, { length }) => sum + length, 0);
  const crashes = random.chance(0.4) ? 1 + random.below(4) : 0;
  return {
    ...plan,
    inside,
    volumeSize: volumeSize + total,
    noise: false,
    crashesWhileInitializing: Array.from({ length: crashes }, () => random.below(60)),
    cycles: plan.cycles.map((cycle) => mapping.cycle(cycle)),
  };
}

function drawRuns(random: SeededRandom, blocks: number): InsidePlan {
  const total = BLOCKS_MIN + random.below(24);
  // One block lists them: of small ones, few.
  const count = 1 + random.below(Math.min(RUNS_MAX, LOCATIONS_PER_BLOCK));
  const others = Array.from({ length: count - 1 }, () => 1 + random.below(NEEDED_BLOCKS + 8));
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
  return { runs, policy: random.chance(0.5) ? 'reject' : 'drop' };
}

/** Moves what was drawn for a volume without the runs. */
class Mapping {
  readonly #random: SeededRandom;
  readonly #inside: InsidePlan;
  /** Share of writes across an edge that stay so, and of cycles in which something writes into a run. */
  readonly #share: number;

  constructor(random: SeededRandom, inside: InsidePlan) {
    this.#random = random;
    this.#inside = inside;
    // Each of them costs all snapshots there are.
    this.#share = inside.policy === 'drop' ? 0.04 : 0.4;
  }

  cycle(cycle: Cycle): Cycle {
    const random = this.#random;
    const operations = cycle.operations.map((operation) => this.#moved(operation));
    if (random.chance(2 * this.#share)) {
      const run = random.pick(this.#inside.runs);
      const offset = run.offset + random.below(run.length / 512) * 512;
      const length = (1 + random.below(random.pick([1, 40, 100]))) * 512;
      const write: Operation = { kind: 'write', offset, length, zeros: random.chance(0.1) };
      operations.splice(random.below(operations.length + 1), 0, write);
    }
    return { ...cycle, operations };
  }

  #moved(operation: Operation): Operation {
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
