/** Short scripted histories, of which every crash is tried. */
import { BLOCK_SIZE } from '../../src/units.js';
import { REVERT_HISTORIES } from './histories-reverting.js';
import {
  CREATE,
  CREATE_SKIPPING,
  copy,
  DELETE_ALL,
  DELETE_OLDEST,
  FLUSH,
  flushSnapshot,
  type History,
  limit,
  NOTHING,
  REVERT,
  remove,
  SECTOR,
  stage,
  touch,
  touchAll,
  touchSnapshot,
  write,
  writeZeros,
  zeroes,
} from './history-steps.js';
import type { Plan } from './plan.js';

/** Two snapshots that leave out what nothing uses; not for tests that are short of time. */
export const TWO_SKIPPING: History = {
  name: 'the second snapshot that leaves out what nothing uses',
  blocks: 6,
  before: [],
  opened: stage(1, write(0, 6), CREATE_SKIPPING, touch(1), touch(0)),
  explored: stage(2, CREATE_SKIPPING, touch(3), touch(1), touch(2), DELETE_OLDEST, touch(4)),
};

/** Snapshots that leave out what nothing uses. */
export const UNUSED_HISTORIES: readonly History[] = [
  {
    name: 'a snapshot leaves out what nothing uses, while writes go on',
    blocks: 6,
    before: [],
    opened: stage(1, write(1, 4), CREATE, touch(0), touch(3)),
    explored: stage(3, touch(1), CREATE_SKIPPING, touch(3), touch(4), FLUSH, touch(2), touch(1)),
  },
  {
    name: 'opening after a killed process that left out what nothing uses',
    blocks: 6,
    before: [
      { ...stage(2, write(0, 6), CREATE, touch(1), CREATE_SKIPPING, write(0, 3), touch(4)), end: 'kill' },
    ],
    opened: NOTHING,
    explored: 'opening',
  },
];

export const CLOSE_AFTER_WORK: History = {
  name: 'a close after work',
  blocks: 6,
  before: [],
  opened: stage(1, touch(3), CREATE, touch(0), touch(1)),
  explored: 'close',
};

export const HISTORIES: readonly History[] = [
  ...UNUSED_HISTORIES,
  ...REVERT_HISTORIES,
  {
    name: 'first write after a snapshot',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE),
    explored: stage(1, touch(1), write(2, 2), FLUSH),
  },
  {
    name: 'two writers of one block',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE),
    explored: stage(3, touch(1), write(1), touch(0), touch(1), FLUSH, touch(5)),
  },
  {
    name: 'no snapshot, writes and flushes',
    blocks: 4,
    before: [],
    opened: NOTHING,
    explored: stage(2, write(0), touch(0), FLUSH, write(1, 2), touch(2), FLUSH, touch(0)),
  },
  {
    name: 'the first snapshot, while writes go on',
    blocks: 6,
    before: [],
    opened: stage(1, write(3)),
    explored: stage(3, touch(0), CREATE, touch(0), touch(1), FLUSH, touch(2)),
  },
  {
    name: 'a second snapshot, while writes go on',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), touch(4)),
    explored: stage(3, touch(1), CREATE, touch(1), touch(0), FLUSH, touch(2)),
  },
  {
    name: 'growth of a diff area',
    blocks: 16,
    growth: 9,
    before: [],
    opened: stage(1, write(8, 8), CREATE, touch(0)),
    explored: stage(2, write(1, 3), write(8, 4), touch(14), FLUSH),
  },
  {
    name: 'deletion of the oldest snapshot, under load',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), CREATE, touch(1), FLUSH),
    explored: stage(2, DELETE_OLDEST, touch(2), touch(0), CREATE),
  },
  {
    name: 'deletion of the only snapshot, under load',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0)),
    explored: stage(3, touch(1), DELETE_OLDEST, touch(2), CREATE, touch(0)),
  },
  {
    name: 'deletion of all snapshots',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), CREATE, touch(1), CREATE, touch(2)),
    explored: stage(2, DELETE_ALL, touch(0), touch(3)),
  },
  {
    name: 'deletion of a snapshot in the middle, under load',
    blocks: 6,
    before: [],
    opened: stage(
      1,
      write(3),
      CREATE,
      touch(0),
      CREATE,
      touch(0),
      touch(1),
      touch(5),
      CREATE,
      touch(2),
      FLUSH,
    ),
    explored: stage(2, remove(1), touch(3), touch(1)),
  },
  {
    name: 'deletion of the newest snapshot, under load',
    blocks: 6,
    before: [],
    opened: stage(1, write(1, 2), CREATE, touch(0), CREATE, touch(1), FLUSH),
    explored: stage(3, touch(2), remove(1), touch(1), touch(2), touch(3), CREATE),
  },
  {
    name: 'deletion of several snapshots, the newest among them',
    blocks: 6,
    before: [],
    opened: stage(1, write(1, 2), CREATE, touch(0), CREATE, touch(1), CREATE, touch(1), touch(2), FLUSH),
    explored: stage(2, remove(1), remove(1), touch(0), touch(3)),
  },
  {
    name: 'deletion of a snapshot in the middle, where space is short',
    blocks: 16,
    growth: 9,
    maximum: 27,
    before: [],
    opened: stage(1, write(0, 12), CREATE, touch(0), CREATE, ...[1, 2, 3, 4, 5].map((block) => touch(block))),
    explored: stage(2, remove(1), touch(6), touch(7)),
  },
  {
    name: 'a merge goes on after a killed process',
    blocks: 6,
    before: [
      {
        ...stage(1, write(1, 2), CREATE, CREATE, touch(1), touch(2), CREATE, touch(3), remove(1)),
        end: 'kill',
      },
    ],
    opened: NOTHING,
    explored: stage(2, touch(0), touch(1), remove(9), FLUSH),
  },
  {
    name: 'the oldest snapshot goes because space is short',
    blocks: 16,
    growth: 9,
    maximum: 24,
    before: [],
    opened: stage(1, write(8, 8), CREATE, write(0, 2), CREATE, touch(0)),
    explored: stage(2, write(2, 3), write(8, 4), touch(15), CREATE),
  },
  {
    name: 'the limit of space is lowered',
    blocks: 8,
    growth: 16,
    before: [],
    opened: stage(1, CREATE, touch(0), CREATE, touch(1)),
    explored: stage(2, limit(20), touch(2), touch(3)),
  },
  CLOSE_AFTER_WORK,
  {
    name: 'opening after a close',
    blocks: 6,
    before: [{ ...stage(2, touch(3), CREATE, touch(0), touch(1)), end: 'close' }],
    opened: NOTHING,
    explored: 'opening',
  },
  {
    name: 'opening after a killed process',
    blocks: 6,
    before: [{ ...stage(3, CREATE, touch(0), touch(1), touch(2), CREATE, touch(0), touch(3)), end: 'kill' }],
    opened: NOTHING,
    explored: 'opening',
  },
  {
    name: 'opening after a power cut',
    blocks: 6,
    before: [{ ...stage(4, CREATE, write(0, 3), touch(1), CREATE, write(2, 2)), end: 'power-cut' }],
    opened: NOTHING,
    explored: 'opening',
  },
  {
    name: 'work after a killed process',
    blocks: 6,
    before: [{ ...stage(4, CREATE, write(0, 3), touch(1), CREATE, write(2, 2)), end: 'kill' }],
    opened: NOTHING,
    explored: stage(2, touch(0), touch(2), FLUSH, touch(3)),
  },
];

/** Of what snapshots hold themselves, and of what moves within the volume. */
export const WRITTEN_HISTORIES: readonly History[] = [
  {
    name: 'a snapshot is written and flushed, beside copies',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), touchSnapshot(0, 1), flushSnapshot(0)),
    explored: stage(2, touchSnapshot(0, 1, 3, 3), touch(2), flushSnapshot(0), touchSnapshot(0, 2), touch(1)),
  },
  {
    name: 'an older snapshot is written and flushed while a newer one takes the copies',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), touchSnapshot(0, 1), CREATE, touch(1)),
    explored: stage(
      2,
      touchSnapshot(0, 0),
      flushSnapshot(0),
      touch(2),
      touchSnapshot(0, 1),
      flushSnapshot(0),
    ),
  },
  {
    name: 'opening after a killed process that wrote to a snapshot',
    blocks: 6,
    before: [
      {
        ...stage(2, CREATE, touch(0), touchSnapshot(0, 1), flushSnapshot(0), touchSnapshot(0, 1, 4, 2)),
        end: 'kill',
      },
    ],
    opened: NOTHING,
    explored: 'opening',
  },
  {
    name: 'a flush of a snapshot meets writes to it',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), touchSnapshot(0, 3)),
    explored: stage(
      3,
      ...[touchSnapshot(0, 1), flushSnapshot(0), touchSnapshot(0, 1, 10, 4), flushSnapshot(0)],
      ...[touchSnapshot(0, 2), flushSnapshot(0)],
    ),
  },
  {
    name: 'blocks move, and their sources are overwritten',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE),
    explored: stage(1, copy(1, 5, 2), write(1, 2), FLUSH, touch(5)),
  },
  {
    name: 'blocks move on, and the targets are overwritten',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, copy(1, 5, 2)),
    explored: stage(2, copy(5, 7), write(1, 2), touch(6), FLUSH, touch(7), touch(3)),
  },
  {
    name: 'blocks move while a snapshot is taken',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, copy(1, 5)),
    explored: stage(2, copy(2, 6), CREATE, write(1, 2), touch(5), FLUSH),
  },
  {
    name: 'opening after a killed process that moved blocks',
    blocks: 10,
    before: [{ ...stage(1, write(0, 8), CREATE, copy(1, 5, 2), write(1), touch(5), touch(3)), end: 'kill' }],
    opened: NOTHING,
    explored: 'opening',
  },
  {
    name: 'a snapshot is deleted whose elder has moves',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, copy(1, 5, 2), CREATE, touch(5), touch(1), CREATE, copy(3, 7)),
    explored: stage(2, remove(1), touch(2), touch(6)),
  },
  {
    name: 'two snapshots whose elder has moves are deleted at once',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, copy(1, 5, 2), CREATE, touch(1), CREATE, touch(3)),
    explored: stage(2, remove(1), remove(1), touch(6)),
  },
  {
    name: 'the newest snapshot is deleted while it has moves',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, touch(0), CREATE, copy(1, 5, 2), touch(1)),
    explored: stage(2, remove(1), touch(5), copy(3, 7), touch(6)),
  },
  {
    name: 'a revert to a snapshot that was written, and of which blocks moved',
    blocks: 10,
    before: [],
    opened: stage(1, write(0, 8), CREATE, copy(1, 5, 2), touch(1), touchSnapshot(0, 3)),
    explored: stage(2, REVERT, touch(2), copy(5, 8), FLUSH, touch(4)),
  },
];

/** A table of more than one block: with the format as it is that takes a volume of more than 508 blocks. */
export const TURN_OVER: History = {
  name: 'a table goes on in a further block',
  blocks: 516,
  growth: 32,
  before: [],
  opened: stage(1, write(504, 12), CREATE, writeZeros(0, 506)),
  explored: stage(2, touch(506), write(507, 3), touch(510)),
};

/** For the small blocks of `SMALL_BLOCKS`: further table blocks and location blocks all the time. */
export const CHAIN_HISTORIES: readonly History[] = [
  {
    name: 'a range is made zero twice at once',
    blocks: 8,
    before: [],
    opened: stage(1, write(0, 6), FLUSH),
    // Not at once: each second one finds zeros of which the first has not been told yet.
    explored: stage(
      3,
      ...[0, 1, 2, 3, 4, 5].flatMap((block) => [zeroes(block, 1), FLUSH, zeroes(block, 1), FLUSH]),
    ),
  },
  {
    name: 'a table of small blocks goes on in a further block',
    blocks: 48,
    growth: 24,
    before: [],
    opened: stage(1, write(16, 8), CREATE, writeZeros(24, 17)),
    explored: stage(2, touch(16), write(17, 3), touch(20), touch(21)),
  },
  {
    // They take no slots: so the slot of a further block that a crash has lost is the next one that a copy takes.
    name: 'a table goes on in a further block with copies of zeros',
    blocks: 48,
    growth: 24,
    before: [],
    opened: stage(1, write(16, 8), CREATE, writeZeros(24, 17)),
    explored: stage(1, touch(16), write(41, 3)),
    // More would need another further block, whose link replaces the one that was left.
    probe: 1,
  },
  {
    name: 'a table in pieces of the volume goes on in a further block',
    blocks: 48,
    growth: 2,
    before: [],
    opened: stage(
      1,
      write(16, 8),
      ...Array.from({ length: 6 }, (_, at) => [CREATE, touch(at)]).flat(),
      writeZeros(24, 18),
    ),
    explored: stage(1, touch(16), touch(17), touch(20)),
    snapshotAfter: true,
  },
  {
    name: 'what was copied before the process was killed is overwritten',
    blocks: 14,
    before: [{ ...stage(1, write(0, 12), FLUSH, CREATE, ...touchAll(0, 12)), end: 'kill', steps: 140 }],
    opened: NOTHING,
    explored: stage(1, ...touchAll(0, 12)),
  },
  {
    name: 'the table of a snapshot that is written goes on in a further block',
    blocks: 48,
    growth: 24,
    before: [],
    opened: stage(1, write(16, 8), CREATE, writeZeros(24, 18)),
    explored: stage(1, touchSnapshot(0, 1), touchSnapshot(0, 2), touchSnapshot(0, 3), flushSnapshot(0)),
  },
  {
    name: 'a table goes on where that of a deleted snapshot was',
    blocks: 48,
    growth: 48,
    room: 512,
    before: [],
    opened: stage(1, write(0, 46), CREATE, ...touchAll(0, 40), DELETE_ALL, CREATE, ...touchAll(0, 19)),
    explored: stage(1, touch(19), touch(20), touch(21), FLUSH),
  },
  {
    name: 'a deleted snapshot is merged in groups, and its end is cut off after each',
    blocks: 24,
    growth: 24,
    before: [],
    opened: stage(1, write(0, 22), CREATE, touch(20), CREATE, ...touchAll(0, 17), CREATE),
    explored: stage(1, remove(1), touch(21), FLUSH),
  },
  {
    name: 'a deleted snapshot is cut off where it has a move, and the copy that spent it',
    blocks: 24,
    growth: 24,
    before: [],
    // The move and that copy are in one group, and not in the sector of the header; what the target held itself is in an earlier one.
    opened: stage(
      1,
      ...[write(0, 22), FLUSH, CREATE, CREATE],
      ...[touch(5), ...touchAll(7, 12), copy(1, 5), touch(5), touch(20), CREATE],
    ),
    explored: stage(1, remove(1), FLUSH),
  },
  {
    name: 'a location list goes on in a further block',
    blocks: 48,
    growth: 9,
    before: [],
    opened: stage(
      1,
      write(0, 40),
      CREATE,
      write(0, 2),
      CREATE,
      write(0, 3),
      CREATE,
      write(0, 4),
      DELETE_OLDEST,
    ),
    explored: stage(2, write(4, 6), write(10, 6), touch(30), FLUSH),
  },
  {
    name: 'a location list of several blocks grows while copies come in',
    blocks: 48,
    growth: 2,
    before: [],
    // Each snapshot begins in the holes that the one before has left.
    opened: stage(1, write(0, 40), ...Array.from({ length: 6 }, (_, at) => [CREATE, touch(at)]).flat()),
    explored: stage(6, ...touchAll(10, 12)),
  },
];

/** The plan under which a history runs. */
export function planOf(history: History, layout: Plan['layout'], seed: number): Plan {
  const { name, blocks, growth = 9, maximum = 0, room = Math.max(64, blocks + 64), inside } = history;
  return {
    atOnce: false,
    seed: `${name} ${seed}`,
    layout,
    // A short last block, and no whole number of them.
    volumeSize: blocks * BLOCK_SIZE - 3 * SECTOR,
    reserve: (10 + room) * BLOCK_SIZE,
    ...(inside === undefined ? {} : { inside }),
    noise: false,
    maximumSize: maximum * BLOCK_SIZE,
    hostSpace: 0,
    growth: { initial: growth * BLOCK_SIZE, maximum: growth * BLOCK_SIZE },
    memoryLimit: 16 * BLOCK_SIZE,
    crashesWhileInitializing: [],
    stragglers: 1 / 64,
    cycles: [],
  };
}
