/** All planted bugs: the simulation has to find each of them, else it proves nothing about the engine. */

import { BUFFERING_BUGS } from './planted/buffering.js';
import type { PlantedBug } from './planted/bug.js';
import { COPYING_BUGS } from './planted/copying.js';
import { DELETION_BUGS } from './planted/deletion.js';
import { GROWING_BUGS } from './planted/growing.js';
import { INSIDE_BUGS } from './planted/inside.js';
import { LATE_BUGS } from './planted/late.js';
import { MOVE_BUGS } from './planted/moves.js';
import { REVERTING_BUGS } from './planted/reverting.js';
import { ROOM_BUGS } from './planted/room.js';
import { SCRUBBING_BUGS } from './planted/scrubbing.js';
import { SET_BUGS } from './planted/sets.js';
import { SNAPSHOT_WRITE_BUGS } from './planted/snapshot-writes.js';
import { SNAPSHOT_BUGS } from './planted/snapshots.js';
import { SPACE_BUGS } from './planted/space.js';
import { TABLE_BUGS } from './planted/table.js';
import { UNUSED_BUGS } from './planted/unused.js';
import { ZERO_BUGS } from './planted/zeros.js';

/** By what they break. */
export const MECHANISMS: Readonly<Record<string, readonly PlantedBug[]>> = {
  copying: COPYING_BUGS,
  buffering: BUFFERING_BUGS,
  table: TABLE_BUGS,
  space: SPACE_BUGS,
  room: ROOM_BUGS,
  snapshots: SNAPSHOT_BUGS,
  deletion: DELETION_BUGS,
  unused: UNUSED_BUGS,
  zeros: ZERO_BUGS,
  reverting: REVERTING_BUGS,
  sets: SET_BUGS,
  'snapshot-writes': SNAPSHOT_WRITE_BUGS,
  moves: MOVE_BUGS,
  late: LATE_BUGS,
  growing: GROWING_BUGS,
  inside: INSIDE_BUGS,
  scrubbing: SCRUBBING_BUGS,
};

export const PLANTED_BUGS: readonly PlantedBug[] = Object.values(MECHANISMS).flat();
