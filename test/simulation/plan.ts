/**
 * What one simulated run does: drawn from its seed before anything runs, so that a failing plan can be made shorter.
 */
import { LOCATIONS_PER_BLOCK } from '../../src/format/constants.js';
import type { WriteMode } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { type Aim, type WriteAim, withAims } from './plan-aims.js';
import { withBursts } from './plan-buffer.js';
import { withDepartures } from './plan-deletion.js';
import { type GrowthOperation, withGrowth } from './plan-growth.js';
import { type InsidePlan, MANY_RUNS, PROTECTED_POLICIES, withInside } from './plan-inside.js';
import { CONTROL_FILE, type SpaceOperation, withSpaceOperations } from './plan-space.js';

/** Bytes of the volume, whole sectors. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

export type Operation =
  | ({ readonly kind: 'write'; readonly zeros: boolean } & Range)
  | ({ readonly kind: 'discard' | 'zeroes' | 'read' } & Range)
  /** `free`: seed of what nothing uses, and is left out; none: nothing is. `passing`: does it go when the volume is closed? */
  | { readonly kind: 'create'; readonly free?: number; readonly passing?: Passing }
  | { readonly kind: 'flush' | 'delete-oldest' | 'delete-all' | 'changed' | 'shorten-hold' }
  /** Copies within the volume; the range is the target. */
  | ({ readonly kind: 'copy-range'; readonly from: number } & Range)
  /** Of one snapshot; `age` as below. */
  | ({ readonly kind: 'write-snapshot'; readonly age: number; readonly zeros: boolean } & Range)
  | { readonly kind: 'flush-snapshot'; readonly age: number }
  /** Reads all snapshots. */
  | { readonly kind: 'read-snapshots' }
  /** Reads a part of one snapshot; `age` counts from the oldest, around if need be. */
  | ({ readonly kind: 'read-snapshot'; readonly age: number } & Range)
  /** Deletes one snapshot, of any age; waits until it is merged, now and then. */
  | { readonly kind: 'delete'; readonly age: number; readonly wait: boolean }
  | { readonly kind: 'limit'; readonly maximum: number }
  /** Puts the volume back to a snapshot; `keep`: the snapshot taken before stays when that is done. */
  | { readonly kind: 'revert'; readonly age: number; readonly keep: boolean }
  | { readonly kind: 'cancel-revert' }
  | GrowthOperation
  | SpaceOperation;

/** Ways in which a snapshot does not outlast the open volume. */
export type Passing = 'not persistent' | 'released';

/** How the volume is opened for writing. */
export interface Writing {
  readonly mode: WriteMode;
  /** Bytes of the write buffer. */
  readonly limit: number;
}

/** What is done while the diff areas are not there. */
export interface Late {
  readonly operations: readonly Operation[];
  /** Steps after which they arrive; `Infinity`: they do not, and the time limit ends. */
  readonly arrivesAfter: number;
  readonly timeLimitMs: number;
  /** Share of device operations that fail, and whether the control file fails besides. */
  readonly faultRate: number;
  readonly controlFaults: boolean;
  /** Bytes for copies in memory. */
  readonly memoryLimit: number;
  /** Steps after which a crash comes, before or after they arrive; `Infinity`: none does. */
  readonly steps: number;
  readonly crash: 'kill' | 'power-cut';
}

/** From one opening to the next: what is done, and how it ends. */
export interface Cycle {
  readonly writing: Writing;
  /** Before that it is opened without its diff areas, which arrive later, and closed again. */
  readonly late?: Late;
  readonly operations: readonly Operation[];
  /** Operations in flight at a time. */
  readonly clients: number;
  readonly end: 'close' | 'kill' | 'power-cut';
  /** Steps of the scheduler after which the crash comes, unless everything is done before; of a close, if it is cut off. */
  readonly steps: number;
  /** Steps after the beginning of one of the operations, within which it comes. */
  readonly aim?: Aim;
  /** Or steps after a write of some kind. */
  readonly writeAim?: WriteAim;
  /** Is the close, if there is one, cut off by a power cut? */
  readonly crashWhileClosing: boolean;
  /** Does the close come at once when everything is done, whatever is still on its way behind the callers? */
  readonly closesAtOnce?: boolean;
  /** Steps into opening again at which further crashes come, one after the other. */
  readonly crashesWhileOpening: readonly { readonly steps: number; readonly end: 'kill' | 'power-cut' }[];
  /** Is the store checked before it is opened again, and every copy in it read? */
  readonly check: boolean;
  /** Share of device operations that fail. */
  readonly faultRate: number;
  /** Does the control file fail much more often than the rest? */
  readonly controlFaults: boolean;
  /** Does a flush of the volume fail soon, with devices that fail? */
  readonly volumeFaults?: boolean;
  /** Bits of the store that rot after the close. */
  readonly rot: number;
  /** Are the damaged snapshots given up then? Else the bits are put right again. */
  readonly dropDamaged: boolean;
}

export interface Plan {
  readonly seed: string;
  /** Devices read and write at the call, now and then. */
  readonly atOnce: boolean;
  readonly layout: 'directory' | 'in-volume';
  readonly volumeSize: number;
  /** In-volume: bytes of the reserve. */
  readonly reserve: number;
  /** In-volume: the store lies inside the volume; none: in a reserve behind it. */
  readonly inside?: InsidePlan;
  /** In-volume: is the reserve full of noise at first, instead of zeros? */
  readonly noise: boolean;
  readonly maximumSize: number;
  /** Directory: bytes that the host has for the store; 0: no limit. */
  readonly hostSpace: number;
  readonly growth: { readonly initial: number; readonly maximum: number };
  readonly memoryLimit: number;
  /** Steps into making the store at which the power goes, time after time. */
  readonly crashesWhileInitializing: readonly number[];
  /** Share of device operations that take much longer than others. */
  readonly stragglers: number;
  readonly cycles: readonly Cycle[];
  /** Further outcomes of each crash that are tried; none: no others than its own. */
  readonly outcomes?: number | undefined;
  /** Moments of the work of each cycle at which a crash is tried in other worlds, besides that at its end. */
  readonly moments?: number | undefined;
  /** Only this one of them. */
  readonly outcome?: OutcomeName | undefined;
}

/** One of the further outcomes of one of the crashes, both counted from 1. */
export interface OutcomeName {
  readonly crash: number;
  readonly outcome: number;
}

export interface PlanOptions extends Pick<Plan, 'outcomes' | 'moments' | 'outcome'> {
  /** Cycles of each run. */
  readonly cycles: number;
  /** Do devices fail in some of the runs? */
  readonly faults: boolean;
  /** Do bits of the store rot? Then devices do not fail. */
  readonly rot: boolean;
  /** Do devices read and write at the call, now and then? */
  readonly atOnce?: boolean;
  /** What every plan is about; else few are about each of these. */
  readonly about?: Topic | undefined;
}

/** What few plans are about, unless all of them are to be. */
export const TOPICS = {
  making: 'a store that is made, while the power goes time after time',
  growth: 'a volume that grows',
  inside: 'a store in runs of a file inside the volume',
  late: 'diff areas that arrive later',
  deletion: 'snapshots that come and go',
  unused: 'snapshots that leave out what nothing uses',
  reverts: 'reverts, and what cancels them',
  copies: 'copies within the volume',
  writes: 'writes to snapshots',
  room: 'policies, holds and limits',
  buffer: 'the write buffer, and what overlaps in it',
  faults: 'devices that fail',
} as const;

export type Topic = keyof typeof TOPICS;

const REVERTING_TOPICS: readonly (Topic | undefined)[] = ['reverts', 'growth', 'inside', 'copies', 'writes'];

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
  /** Share of cycles with devices that fail, if there are any. */
  readonly faultShare: number;
  readonly rot: boolean;
  /** Do snapshots come and go all the time? */
  readonly busy: boolean;
}

/** Share of plans with devices that fail, by what they are about; of the others six of ten. */
const FAULTY: Readonly<Record<string, number | undefined>> = { any: 0.35, faults: 1 };

/** Plans about these are of what happens between snapshots. */
const BUSY_TOPICS: readonly (Topic | undefined)[] = ['deletion', 'unused', 'copies', 'writes', 'reverts'];

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
  const initial = (1 + random.below(random.pick([3, 12, 32]))) * BLOCK_SIZE;
  const isDirectory = random.chance(0.5);
  const layout = (options.about === undefined ? isDirectory : options.about !== 'inside')
    ? 'directory'
    : 'in-volume';
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
    faulty: options.faults && !options.rot && random.chance(FAULTY[options.about ?? 'any'] ?? 0.6),
    faultShare: options.about === 'faults' ? 0.9 : 0.5,
    rot: options.rot,
    busy: BUSY_TOPICS.includes(options.about),
  };
  const isMaking = options.about === 'making';
  const crashes = isMaking ? 12 : random.chance(0.4) ? 1 + random.below(4) : 0;
  const crashesWhileInitializing = Array.from({ length: crashes }, () => random.below(50));
  const plan: Plan = {
    seed,
    atOnce: options.atOnce ?? false,
    layout,
    volumeSize,
    reserve: 10 * BLOCK_SIZE + (tight ? Math.max(scarce, 64 * BLOCK_SIZE) : roomy * BLOCK_SIZE),
    noise,
    maximumSize: tight && !byHost ? scarce : 0,
    hostSpace: byHost ? CONTROL_FILE + scarce : 0,
    growth: { initial, maximum: initial * (1 + random.below(4)) },
    memoryLimit: (1 + random.below(64)) * BLOCK_SIZE,
    // A volume made longer in a crash is not the volume that the model knows.
    crashesWhileInitializing: layout === 'directory' || noise ? crashesWhileInitializing : [],
    // Who is late shows most between snapshots that come and go.
    stragglers: random.pick(style.busy ? [1 / 64, 1 / 6, 1 / 6] : [1 / 64, 1 / 64, 1 / 6]),
    outcomes: options.outcomes,
    moments: options.moments,
    outcome: options.outcome,
    cycles: withSpaceOperations(
      seed,
      withDepartures(
        seed,
        withCopies(
          seed,
          style,
          withSnapshotWrites(
            seed,
            style,
            withReverts(
              seed,
              style,
              drawCycles(random, style, isMaking ? 1 : options.cycles, drawModes(seed))
                .map(drawSkips(seed, options.about === 'unused'))
                .map(drawPassing(seed))
                .map(drawLate(seed, style, layout, options.about === 'late')),
              REVERTING_TOPICS.includes(options.about),
            ),
            options.about === 'writes',
          ),
          options.about === 'copies',
        ),
        volumeSize,
        options.about === 'deletion',
      ),
      scarce,
      options.about === 'room',
    ),
  };
  const drawn = withGrowth(plan, options.about === 'growth', options.faults && !options.rot);
  const grown = options.rot ? withoutSnapshotWrites(drawn) : drawn;
  // What a store gives way to is the volume's: what rots there nobody finds.
  // And each time may make one run two, of which a small list has no room.
  const mustStay = options.rot || LOCATIONS_PER_BLOCK < 2 * MANY_RUNS;
  const policies = mustStay ? (['reject'] as const) : PROTECTED_POLICIES;
  const placed = withInside(grown, options.about === 'inside', policies);
  return withAims(withBursts(placed, options.about === 'buffer'), options.about !== undefined);
}

/** Steps that an operation takes, more or less: a crash should come while there is work. */
const STEPS_PER_OPERATION = 16;

/** The modes of writing of one cycle after the other: always the same one, or now this and now that. */
function drawModes(seed: string): () => Writing {
  const random = new SeededRandom(`modes ${seed}`);
  const modes = random.pick<readonly WriteMode[]>([
    ['ordered'],
    ['writeback'],
    ['writeback'],
    ['ordered', 'writeback'],
  ]);
  return () => ({ mode: random.pick(modes), limit: random.pick([1, 4, 16, 64, 1024]) * BLOCK_SIZE });
}

/** Some of the snapshots leave out what nothing uses: in no run, in many, or in all. */
function drawSkips(seed: string, always: boolean): (cycle: Cycle) => Cycle {
  const random = new SeededRandom(`skips ${seed}`);
  const drawn = random.pick([0, 0, 0.7, 1]);
  const share = always ? 0.8 : drawn;
  const skip = (operation: Operation): Operation =>
    operation.kind === 'create' && random.chance(share)
      ? { ...operation, free: random.below(2 ** 31) }
      : operation;
  return (cycle) => ({ ...cycle, operations: cycle.operations.map(skip) });
}

/** Some of the snapshots do not outlast the open volume: drawn apart, so that the rest of each plan stays as it is. */
function drawPassing(seed: string): (cycle: Cycle) => Cycle {
  const random = new SeededRandom(`passing ${seed}`);
  const share = random.pick([0, 0, 0.3, 0.8]);
  const pass = (operation: Operation): Operation =>
    operation.kind === 'create' && random.chance(share)
      ? { ...operation, passing: random.pick(['not persistent', 'released']) }
      : operation;
  return (cycle) => ({ ...cycle, operations: cycle.operations.map(pass) });
}

/** In some plans the diff areas arrive later than the volume: drawn apart, too. */
function drawLate(
  seed: string,
  style: Style,
  layout: Plan['layout'],
  always: boolean,
): (cycle: Cycle) => Cycle {
  const random = new SeededRandom(`late ${seed}`);
  const drawn = random.pick([0, 0, 0.3, 0.8]);
  const share = layout !== 'directory' || style.rot ? 0 : always ? 0.8 : drawn;
  return (cycle) => {
    if (!random.chance(share)) return cycle;
    const operations = Array.from({ length: random.below(24) }, () => drawWhileLate(random, style));
    const late: Late = {
      operations,
      arrivesAfter: random.chance(0.15)
        ? Infinity
        : random.below(20 + operations.length * STEPS_PER_OPERATION),
      // Nearly always they are there before that, unless they do not come at all.
      timeLimitMs: random.pick([5, 500, 5000]),
      faultRate: style.faulty && random.chance(0.4) ? random.pick([0.002, 0.02]) : 0,
      controlFaults: random.chance(0.5),
      memoryLimit: random.pick([12, 40, 2000]) * BLOCK_SIZE,
      steps: random.chance(0.4) ? random.below(500) : Infinity,
      crash: random.pick(['kill', 'power-cut']),
    };
    return { ...cycle, late };
  };
}

const WHILE_LATE = [
  ...(['write', 'write', 'write', 'write', 'write', 'write', 'write', 'write'] as const),
  ...(['discard', 'flush', 'flush', 'create', 'create', 'copy-range', 'copy-range'] as const),
  ...(['delete', 'delete-oldest', 'read-snapshots', 'changed', 'hold', 'revert'] as const),
];

function drawWhileLate(random: SeededRandom, style: Style): Operation {
  const kind = random.pick(WHILE_LATE);
  switch (kind) {
    case 'create':
      return random.chance(0.5) ? { kind } : { kind, free: random.below(2 ** 31) };
    case 'delete':
      return { kind, age: random.below(64), wait: random.chance(0.3) };
    case 'hold':
      return { kind, age: random.below(64), forMs: random.chance(0.3) ? undefined : 1 + random.below(50) };
    case 'revert':
      return { kind, age: random.below(64), keep: random.chance(0.6) };
    case 'copy-range': {
      const range = drawRange(random, style);
      return { kind, from: range.offset, ...drawRangeOf(random, style, range.length) };
    }
    case 'write':
      return { kind, ...drawRange(random, style), zeros: random.chance(0.1) };
    case 'discard':
      return { kind, ...drawRange(random, style) };
    default:
      return { kind };
  }
}

const drawRangeOf = (random: SeededRandom, { sectors }: Style, length: number): Range => ({
  offset: random.below(sectors - length / 512 + 1) * 512,
  length,
});

function drawCycles(random: SeededRandom, style: Style, count: number, writing: () => Writing): Cycle[] {
  const cycles: Cycle[] = [];
  while (cycles.length < count) {
    const cycle = { ...drawCycle(random, style), writing: writing() };
    const killed = cycles.at(-1);
    // Who finds a server gone does again what it was doing, and now the power fails.
    const isAgain = killed?.end === 'kill' && random.chance(0.7);
    if (!isAgain) cycles.push(cycle);
    else {
      const operations = killed.operations.filter(({ kind }) => kind !== 'create');
      cycles.push({ ...killed, operations, end: 'power-cut', steps: random.below(killed.steps + 1) });
    }
  }
  return cycles;
}

function drawCycle(random: SeededRandom, style: Style): Omit<Cycle, 'writing'> {
  const count = random.below(random.chance(0.3) ? 10 : style.operationsMax);
  const end = random.pick(['close', 'kill', 'power-cut', 'power-cut'] as const);
  const mood = random.pick(MOODS);
  const weights = style.busy ? BUSY : mood;
  const crashes = random.chance(0.15) ? 1 + random.below(3) : 0;
  // What rots together with a crash cannot be told from what was never written.
  const rots = style.rot && random.chance(0.5);
  const operations = Array.from({ length: count }, () => drawOperation(random, style, weights));
  // Most blocks have a copy already, unless the newest snapshot is new.
  if (random.chance(0.5)) operations.unshift({ kind: 'create' });
  return {
    operations,
    clients: 1 + random.below(random.chance(0.1) ? 32 : 8),
    end: rots ? 'close' : end,
    steps: random.below(random.chance(0.1) ? 1500 : 20 + count * STEPS_PER_OPERATION),
    crashWhileClosing: random.chance(0.3) && !rots,
    crashesWhileOpening: Array.from({ length: crashes }, () => ({
      steps: random.below(120),
      end: random.pick(['kill', 'power-cut', 'power-cut'] as const),
    })),
    check: random.chance(0.25),
    faultRate: style.faulty && random.chance(style.faultShare) ? random.pick([0.002, 0.01, 0.05]) : 0,
    controlFaults: random.chance(0.3),
    rot: rots ? random.pick([1, 1, 2, 8]) : 0,
    dropDamaged: random.chance(0.2),
  };
}

/** Puts reverts, and what cancels them, into some of the plans: drawn apart, so that the others stay as they are. */
function withReverts(seed: string, style: Style, cycles: readonly Cycle[], always: boolean): Cycle[] {
  const random = new SeededRandom(`reverts ${seed}`);
  if (!(random.chance(0.4) || always)) return [...cycles];
  return cycles.map((cycle) => {
    const operations = [...cycle.operations];
    if (always) operations.unshift({ kind: 'create' });
    // Behind that.
    const first = always ? 1 : 0;
    const put = (operation: Operation) =>
      operations.splice(first + random.below(operations.length + 1 - first), 0, operation);
    if (always) {
      // What meets one that is under way.
      const write = (): Operation => ({ kind: 'write', ...drawRange(random, style), zeros: false });
      const revert: Operation = { kind: 'revert', age: random.below(64), keep: true };
      const at = first + random.below(operations.length + 1 - first);
      operations.splice(at, 0, revert, write(), write(), { kind: 'flush' }, write());
    }
    if (random.chance(0.5)) put({ kind: 'revert', age: random.below(64), keep: random.chance(0.6) });
    while (random.chance(0.4)) put({ kind: 'revert', age: random.below(64), keep: random.chance(0.6) });
    while (random.chance(0.4)) put({ kind: 'cancel-revert' });
    return { ...cycle, operations };
  });
}

/** What rots in what was written to a snapshot is not found: it has no checksum. */
const withoutSnapshotWrites = (plan: Plan): Plan => ({
  ...plan,
  cycles: plan.cycles.map((cycle) => ({
    ...cycle,
    operations: cycle.operations.filter(({ kind }) => kind !== 'write-snapshot'),
  })),
});

/** In some plans snapshots are written, too; not where bits rot (see above). */
function withSnapshotWrites(
  seed: string,
  style: Style,
  cycles: readonly Cycle[],
  always: boolean,
): readonly Cycle[] {
  const random = new SeededRandom(`snapshot writes ${seed}`);
  if (style.rot || (random.chance(0.5) && !always)) return cycles;
  return cycles.map((cycle) => {
    const operations = [...cycle.operations];
    const count = random.below(random.pick([3, 10, 40]));
    for (let i = 0; i < count; i++) {
      const age = random.below(64);
      const operation: Operation = random.chance(0.25)
        ? { kind: 'flush-snapshot', age }
        : { kind: 'write-snapshot', age, ...drawRange(random, style), zeros: random.chance(0.1) };
      operations.splice(random.below(operations.length + 1), 0, operation);
    }
    return { ...cycle, operations };
  });
}

/** In some plans bytes are copied within the volume; mostly whole blocks, which move. */
function withCopies(seed: string, style: Style, cycles: readonly Cycle[], always: boolean): readonly Cycle[] {
  const random = new SeededRandom(`copies ${seed}`);
  if (random.chance(0.5) && !always) return cycles;
  const blocks = Math.floor((style.sectors * 512) / BLOCK_SIZE);
  const few = random.chance(always ? 0.8 : 0.5) ? Math.min(blocks, 6) : blocks;
  return cycles.map((cycle) => {
    const operations = [...cycle.operations];
    const count = random.below(random.pick(always ? [15, 40] : [4, 15]));
    for (let i = 0; i < count; i++) {
      const operation = random.chance(0.8) ? drawMove(random, few) : drawCopy(random, style);
      operations.splice(random.below(operations.length + 1), 0, operation);
    }
    return { ...cycle, operations };
  });
}

function drawMove(random: SeededRandom, blocks: number): Operation {
  const count = 1 + random.below(Math.min(3, blocks));
  const place = () => random.below(blocks - count + 1) * BLOCK_SIZE;
  return { kind: 'copy-range', from: place(), offset: place(), length: count * BLOCK_SIZE };
}

function drawCopy(random: SeededRandom, style: Style): Operation {
  const range = drawRange(random, style);
  return { kind: 'copy-range', from: random.below(style.sectors - range.length / 512 + 1) * 512, ...range };
}

/** Kinds of operations that are drawn one by one; the others are drawn apart. */
type Drawn = Exclude<
  Operation['kind'],
  | 'revert'
  | 'cancel-revert'
  | 'write-snapshot'
  | 'flush-snapshot'
  | 'copy-range'
  | GrowthOperation['kind']
  | SpaceOperation['kind']
>;
type Weights = Readonly<Record<Drawn, number>>;

const NORMAL: Weights = {
  write: 58,
  discard: 4,
  zeroes: 3,
  flush: 8,
  read: 5,
  'read-snapshot': 6,
  'read-snapshots': 5,
  changed: 2,
  create: 4,
  delete: 3,
  'delete-oldest': 2,
  'delete-all': 1,
  limit: 1,
  'shorten-hold': 1,
};
/** Mostly writes; snapshots that come and go; and neither. */
const MOODS: readonly Weights[] = [
  NORMAL,
  NORMAL,
  {
    ...NORMAL,
    create: 20,
    delete: 12,
    'delete-oldest': 4,
    'delete-all': 2,
    'read-snapshots': 20,
    'read-snapshot': 20,
  },
  { ...NORMAL, create: 1, delete: 0, 'delete-oldest': 0, 'delete-all': 0, limit: 0, flush: 3 },
];

const BUSY: Weights = {
  ...NORMAL,
  create: 14,
  delete: 8,
  'delete-oldest': 1,
  'delete-all': 0,
  'read-snapshots': 10,
  'read-snapshot': 20,
  changed: 8,
  limit: 0,
};

function drawOperation(random: SeededRandom, style: Style, weights: Weights): Operation {
  const kind = drawKind(random, weights);
  switch (kind) {
    case 'write':
      return { kind, ...drawRange(random, style), zeros: random.chance(0.1) };
    case 'discard':
    case 'zeroes':
    case 'read':
      return { kind, ...drawRange(random, style) };
    case 'read-snapshot':
      return { kind, age: random.below(64), ...drawRange(random, style) };
    case 'delete':
      return { kind, age: random.below(64), wait: random.chance(0.3) };
    case 'limit': {
      const room = style.scarce + random.below(64) * BLOCK_SIZE;
      return { kind, maximum: random.chance(0.5) ? 0 : room };
    }
    default:
      return { kind };
  }
}

function drawKind(random: SeededRandom, weights: Weights): Drawn {
  const kinds = Object.entries(weights) as [Drawn, number][];
  let left = random.below(kinds.reduce((sum, [, weight]) => sum + weight, 0));
  for (const [kind, weight] of kinds) {
    if (left < weight) return kind;
    left -= weight;
  }
  return 'write';
}

function drawRange(random: SeededRandom, { sectors, lengths, hot }: Style): Range {
  const isHot = random.chance(0.8);
  const length = 1 + random.below(Math.min(random.pick(lengths), sectors));
  const from = hot !== undefined && isHot ? hot.from + random.below(hot.count) : random.below(sectors);
  return { offset: Math.min(from, sectors - length) * 512, length: length * 512 };
}
