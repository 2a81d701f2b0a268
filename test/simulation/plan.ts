/**
 * What one simulated run does: drawn from its seed before anything runs, so that a failing plan can be made shorter.
 */
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';

/** Bytes of the volume, whole sectors. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

export type Operation =
  | ({ readonly kind: 'write'; readonly zeros: boolean } & Range)
  | ({ readonly kind: 'discard' | 'zeroes' | 'read' } & Range)
  | { readonly kind: 'flush' | 'create' | 'delete-oldest' | 'delete-all' | 'changed' | 'shorten-hold' }
  /** Reads all snapshots. */
  | { readonly kind: 'read-snapshots' }
  /** Reads a part of one snapshot; `age` counts from the oldest, around if need be. */
  | ({ readonly kind: 'read-snapshot'; readonly age: number } & Range)
  | { readonly kind: 'limit'; readonly maximum: number };

/** From one opening to the next: what is done, and how it ends. */
export interface Cycle {
  readonly operations: readonly Operation[];
  /** Operations in flight at a time. */
  readonly clients: number;
  readonly end: 'close' | 'kill' | 'power-cut';
  /** Steps of the scheduler after which the crash comes, unless everything is done before; of a close, if it is cut off. */
  readonly steps: number;
  /** Is the close, if there is one, cut off by a power cut? */
  readonly crashWhileClosing: boolean;
  /** Steps into opening again at which further crashes come, one after the other. */
  readonly crashesWhileOpening: readonly { readonly steps: number; readonly end: 'kill' | 'power-cut' }[];
  /** Is the store checked before it is opened again, and every copy in it read? */
  readonly check: boolean;
  /** Share of device operations that fail. */
  readonly faultRate: number;
  /** Bits of the store that rot after the close. */
  readonly rot: number;
}

export interface Plan {
  readonly seed: string;
  readonly layout: 'directory' | 'in-volume';
  readonly volumeSize: number;
  /** In-volume: bytes of the reserve. */
  readonly reserve: number;
  /** In-volume: is the reserve full of noise at first, instead of zeros? */
  readonly noise: boolean;
  readonly maximumSize: number;
  /** Directory: bytes that the host has for the store; 0: no limit. */
  readonly hostSpace: number;
  readonly growth: { readonly initial: number; readonly maximum: number };
  readonly memoryLimit: number;
  /** Steps into making the store at which the power goes, if at all. */
  readonly crashWhileInitializing: number | undefined;
  readonly cycles: readonly Cycle[];
}

export interface PlanOptions {
  /** Cycles of each run. */
  readonly cycles: number;
  /** Do devices fail in some of the runs? */
  readonly faults: boolean;
  /** Do bits of the store rot? Then devices do not fail. */
  readonly rot: boolean;
}

/** What the cycles of one plan have in common. */
interface Style {
  readonly sectors: number;
  /** Lengths of writes, in sectors. */
  readonly lengths: readonly number[];
  /** Sectors that most of the writes go to. */
  readonly hot: { readonly from: number; readonly count: number } | undefined;
  readonly operationsMax: number;
  readonly scarce: number;
  readonly faulty: boolean;
  readonly rot: boolean;
}

/** Bytes of a directory store without a snapshot. */
const CONTROL_FILE = 10 * BLOCK_SIZE;

export function drawPlan(seed: string, options: PlanOptions): Plan {
  const random = new SeededRandom(`plan ${seed}`);
  // Few plans have more blocks than fit into one table block: they take as long as twenty others.
  const large = random.chance(0.02);
  const blocks = large ? 512 + random.below(64) : 4 + random.below(random.chance(0.2) ? 90 : 28);
  // Not always whole blocks, but whole sectors: that is what the model knows.
  const volumeSize = blocks * BLOCK_SIZE - (random.chance(0.3) ? random.below(31) * 512 : 0);
  const sectors = volumeSize / 512;
  const tight = !large && random.chance(0.4);
  const scarce = (12 + random.below(6 * blocks)) * BLOCK_SIZE;
  const initial = (9 + random.below(24)) * BLOCK_SIZE;
  const layout = random.chance(0.5) ? 'directory' : 'in-volume';
  const byHost = tight && layout === 'directory' && random.chance(0.4);
  const noise = layout === 'in-volume' && random.chance(0.5);
  // Noise costs time for every byte; and with less room it is used again and again.
  const roomy = noise && !large ? 320 + random.below(512) : 4096;
  const style: Style = {
    sectors,
    lengths: large ? [1, 160, sectors] : [1, 8, 32, 33, 160],
    hot: random.chance(0.3) ? { from: random.below(sectors), count: 1 + random.below(96) } : undefined,
    operationsMax: large ? 14 : 60,
    scarce,
    faulty: options.faults && !options.rot && random.chance(0.35),
    rot: options.rot,
  };
  const crashWhileInitializing = random.chance(0.1) ? random.below(60) : undefined;
  return {
    seed,
    layout,
    volumeSize,
    reserve: 10 * BLOCK_SIZE + (tight ? Math.max(scarce, 64 * BLOCK_SIZE) : roomy * BLOCK_SIZE),
    noise,
    maximumSize: tight && !byHost ? scarce : 0,
    hostSpace: byHost ? CONTROL_FILE + scarce : 0,
    growth: { initial, maximum: initial * (1 + random.below(4)) },
    memoryLimit: (1 + random.below(64)) * BLOCK_SIZE,
    // A volume made longer in a crash is not the volume that the model knows.
    crashWhileInitializing: layout === 'directory' || noise ? crashWhileInitializing : undefined,
    cycles: Array.from({ length: options.cycles }, () => drawCycle(random, style)),
  };
}

function drawCycle(random: SeededRandom, style: Style): Cycle {
  const count = random.below(style.operationsMax);
  const end = random.pick(['close', 'kill', 'power-cut', 'power-cut', 'power-cut'] as const);
  const snapshots = random.pick([0.02, 0.06, 0.2]);
  const crashes = random.chance(0.15) ? 1 + random.below(3) : 0;
  // What rots together with a crash cannot be told from what was never written.
  const rots = style.rot && random.chance(0.5);
  return {
    operations: Array.from({ length: count }, () => drawOperation(random, style, snapshots)),
    clients: 1 + random.below(random.chance(0.1) ? 32 : 8),
    end: rots ? 'close' : end,
    steps: random.below(random.chance(0.3) ? 60 : 1500),
    crashWhileClosing: random.chance(0.3) && !rots,
    crashesWhileOpening: Array.from({ length: crashes }, () => ({
      steps: random.below(120),
      end: random.pick(['kill', 'power-cut', 'power-cut'] as const),
    })),
    check: random.chance(0.25),
    faultRate: style.faulty && random.chance(0.5) ? random.pick([0.002, 0.01, 0.05]) : 0,
    rot: rots ? random.pick([1, 1, 2, 8]) : 0,
  };
}

function drawOperation(random: SeededRandom, style: Style, snapshots: number): Operation {
  if (random.chance(snapshots)) return { kind: 'create' };
  const draw = random.below(100);
  if (draw < 60) return { kind: 'write', ...drawRange(random, style), zeros: random.chance(0.1) };
  if (draw < 64) return { kind: 'discard', ...drawRange(random, style) };
  if (draw < 67) return { kind: 'zeroes', ...drawRange(random, style) };
  if (draw < 75) return { kind: 'flush' };
  if (draw < 80) return { kind: 'read', ...drawRange(random, style) };
  if (draw < 86) return { kind: 'read-snapshot', age: random.below(64), ...drawRange(random, style) };
  if (draw < 91) return { kind: 'read-snapshots' };
  if (draw < 93) return { kind: 'changed' };
  if (draw < 96) return { kind: 'delete-oldest' };
  if (draw < 97) return { kind: 'delete-all' };
  if (draw < 98) {
    const room = style.scarce + random.below(64) * BLOCK_SIZE;
    return { kind: 'limit', maximum: random.chance(0.5) ? 0 : room };
  }
  return { kind: 'shorten-hold' };
}

function drawRange(random: SeededRandom, { sectors, lengths, hot }: Style): Range {
  const isHot = random.chance(0.8);
  const length = 1 + random.below(Math.min(random.pick(lengths), sectors));
  const from = hot !== undefined && isHot ? hot.from + random.below(hot.count) : random.below(sectors);
  return { offset: Math.min(from, sectors - length) * 512, length: length * 512 };
}
