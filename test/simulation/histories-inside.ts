/** Short scripted histories of a store in runs of a file inside the volume. */
import { BLOCK_SIZE } from '../../src/units.js';
import { CREATE, FLUSH, type History, stage, touch, write } from './history-steps.js';
import type { InsidePlan } from './plan-inside.js';

const FIRST_RUN_BLOCKS = 58;
const OTHER_RUNS = 18;
/** Behind what the store begins with: there lie the copies of the first snapshot, behind the fixed slots of its diff area. */
const COPIES_AT = 18;

/** So many runs that their list has two sectors; every second block from 59 on is the volume's own. */
const RUNS: InsidePlan = {
  runs: [
    { offset: BLOCK_SIZE, length: FIRST_RUN_BLOCKS * BLOCK_SIZE },
    ...Array.from({ length: OTHER_RUNS }, (_, at) => ({
      offset: (FIRST_RUN_BLOCKS + 2 + 2 * at) * BLOCK_SIZE,
      length: BLOCK_SIZE,
    })),
  ],
  policy: 'drop',
};

export const INSIDE_HISTORIES: readonly History[] = [
  {
    name: 'a store inside the volume gives way to a write over copies',
    blocks: FIRST_RUN_BLOCKS + 2 * OTHER_RUNS + 3,
    inside: RUNS,
    before: [],
    opened: stage(1, write(59), write(61), FLUSH, CREATE, write(59), write(61), FLUSH),
    explored: stage(1, write(COPIES_AT, 2), touch(63), FLUSH),
  },
];
