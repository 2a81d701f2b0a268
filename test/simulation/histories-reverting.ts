/** Short scripted histories of volumes that are put back to a snapshot. */
import {
  CANCEL_REVERT,
  CREATE,
  DELETE_SECOND,
  FLUSH,
  type History,
  NOTHING,
  REVERT,
  REVERT_FOR_GOOD,
  stage,
  touch,
  write,
} from './history-steps.js';

export const REVERT_HISTORIES: readonly History[] = [
  {
    name: 'a revert, while writes go on',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), write(2, 2), FLUSH),
    explored: stage(2, REVERT, touch(2), touch(0), FLUSH, touch(5)),
  },
  {
    name: 'a revert over several snapshots',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), CREATE, touch(0), write(3)),
    explored: stage(3, REVERT, touch(3), touch(3), FLUSH),
  },
  {
    name: 'a revert while a deleted snapshot is merged, after which the state before goes too',
    blocks: 6,
    before: [],
    opened: stage(1, write(1, 2), CREATE, touch(0), CREATE, touch(1), touch(3), FLUSH, DELETE_SECOND),
    explored: stage(2, REVERT_FOR_GOOD, touch(3), touch(1), FLUSH),
  },
  {
    name: 'a revert, which is cancelled',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), write(2, 2), FLUSH),
    explored: stage(1, REVERT, CANCEL_REVERT, touch(2), FLUSH),
  },
  {
    name: 'opening in the middle of a revert',
    blocks: 6,
    before: [{ ...stage(2, CREATE, touch(0), write(2, 2), FLUSH, REVERT, touch(2), FLUSH), end: 'kill' }],
    opened: NOTHING,
    explored: 'opening',
  },
];

/** To their ends: not for tests that are short of time. */
export const LONG_REVERT_HISTORIES: readonly History[] = [
  {
    name: 'a revert that is cancelled, and written under until that is done',
    blocks: 14,
    before: [],
    opened: stage(1, CREATE, write(0, 12), FLUSH),
    explored: {
      ...stage(1, REVERT, ...[11, 9, 7, 5].map(touch), CANCEL_REVERT, touch(12), touch(3), FLUSH),
      untilReverted: true,
    },
  },
  {
    name: 'a revert to its end, with which the state before goes',
    blocks: 6,
    before: [],
    opened: stage(1, CREATE, touch(0), write(2, 2), FLUSH),
    explored: { ...stage(1, REVERT_FOR_GOOD, touch(2), FLUSH), untilReverted: true },
  },
];
