/**
 * What one simulated run does: drawn from its seed before anything runs, so that a failing plan can be made shorter.
 */
import { type DiskOperation, SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';

export type Operation =
  | { readonly kind: 'write'; readonly offset: number; readonly length: number; readonly zeros: boolean }
  | { readonly kind: 'discard' | 'zeroes'; readonly offset: number; readonly length: number }
  | {
      readonly kind:
        | 'flush'
        | 'create'
        | 'delete-oldest'
        | 'delete-all'
        | 'read-snapshots'
        | 'changed'
        | 'shorten-hold';
    }
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  | { readonly kind: 'limit'; readonly maximum: number };

/** From one opening to the next: what is done, and how it ends. */
export interface Cycle {
  readonly operations: readonly Operation[];
  /** Operations in flight at a time. */
  readonly clients: number;
  readonly end: 'close' | 'kill' | 'power-cut';
  /** Steps of the scheduler after which the crash comes, unless everything is done before. */
  readonly steps: number;
  /** Steps into opening again at which a further crash comes, if any. */
  readonly crashWhileOpening: number | undefined;
  /** Share of device operations that fail. */
  readonly faultRate: number;
}

export interface Plan {
  readonly seed: string;
  readonly layout: 'directory' | 'in-volume';
  readonly volumeSize: number;
  /** In-volume: bytes of the reserve. */
  readonly reserve: number;
  readonly maximumSize: number;
  readonly growth: { readonly initial: number; readonly maximum: number };
  readonly memoryLimit: number;
  readonly cycles: readonly Cycle[];
}

export interface PlanOptions {
  /** Cycles of each run. */
  readonly cycles: number;
  /** Do devices fail in some of the runs? */
  readonly faults: boolean;
}

export function drawPlan(seed: string, options: PlanOptions): Plan {
  const random = new SeededRandom(`plan ${seed}`);
  const blocks = 4 + random.below(random.chance(0.2) ? 90 : 28);
  // Not always whole blocks, but whole sectors: that is what the model knows.
  const volumeSize = blocks * BLOCK_SIZE - (random.chance(0.3) ? random.below(31) * 512 : 0);
  const tight = random.chance(0.4);
  const scarce = (12 + random.below(6 * blocks)) * BLOCK_SIZE;
  const initial = (9 + random.below(24)) * BLOCK_SIZE;
  const faulty = options.faults && random.chance(0.35);
  return {
    seed,
    layout: random.chance(0.5) ? 'directory' : 'in-volume',
    volumeSize,
    reserve: 10 * BLOCK_SIZE + (tight ? Math.max(scarce, 64 * BLOCK_SIZE) : 4096 * BLOCK_SIZE),
    maximumSize: tight ? scarce : 0,
    growth: { initial, maximum: initial * (1 + random.below(4)) },
    memoryLimit: (1 + random.below(64)) * BLOCK_SIZE,
    cycles: Array.from({ length: options.cycles }, () => drawCycle(random, volumeSize, scarce, faulty)),
  };
}

function drawCycle(random: SeededRandom, volumeSize: number, scarce: number, faulty: boolean): Cycle {
  const count = random.below(60);
  const end = random.pick(['close', 'kill', 'power-cut', 'power-cut', 'power-cut'] as const);
  const snapshots = random.pick([0.02, 0.06, 0.2]);
  return {
    operations: Array.from({ length: count }, () => drawOperation(random, volumeSize, scarce, snapshots)),
    clients: 1 + random.below(8),
    end,
    steps: random.below(random.chance(0.3) ? 60 : 1500),
    crashWhileOpening: random.chance(0.15) ? random.below(80) : undefined,
    faultRate: faulty && random.chance(0.5) ? random.pick([0.002, 0.01, 0.05]) : 0,
  };
}

function drawOperation(
  random: SeededRandom,
  volumeSize: number,
  scarce: number,
  snapshots: number,
): Operation {
  const sectors = volumeSize / 512;
  const range = () => {
    const longest = random.pick([1, 8, 32, 33, 160]);
    const length = 1 + random.below(Math.min(longest, sectors));
    return { offset: random.below(sectors - length + 1) * 512, length: length * 512 };
  };
  if (random.chance(snapshots)) return { kind: 'create' };
  const draw = random.below(100);
  if (draw < 62) return { kind: 'write', ...range(), zeros: random.chance(0.1) };
  if (draw < 66) return { kind: 'discard', ...range() };
  if (draw < 69) return { kind: 'zeroes', ...range() };
  if (draw < 77) return { kind: 'flush' };
  if (draw < 83) return { kind: 'read', ...range() };
  if (draw < 91) return { kind: 'read-snapshots' };
  if (draw < 93) return { kind: 'changed' };
  if (draw < 96) return { kind: 'delete-oldest' };
  if (draw < 97) return { kind: 'delete-all' };
  if (draw < 98)
    return { kind: 'limit', maximum: random.chance(0.5) ? 0 : scarce + random.below(64) * BLOCK_SIZE };
  return { kind: 'shorten-hold' };
}

/** Operations of a disk that a fault may hit. */
export const FAULTABLE: readonly DiskOperation[] = ['read', 'write', 'flush', 'resize'];
