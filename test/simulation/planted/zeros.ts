/** Bugs in what is known to be zero, and so passed over. */
import type { PlantedBug } from './bug.js';

const SNAPSHOT = 'snapshot/allocation.ts';

export const ZERO_BUGS: readonly PlantedBug[] = [
  {
    name: 'every copy counts as a copy of zeros',
    breaks: 'an export leaves data out',
    edits: [{ file: SNAPSHOT, find: '=== FixedSlot.zeros', replace: '>= FixedSlot.zeros' }],
  },
  {
    name: 'any copy, not the oldest, says whether a block is zero',
    breaks: 'an export leaves out what was overwritten with zeros later',
    edits: [{ file: SNAPSHOT, find: '(own[i] ?? 0) & ~(copied[i] ?? 0)', replace: 'own[i] ?? 0' }],
  },
  {
    name: 'what the volume knows to be zero now counts for a snapshot, copy or not',
    breaks: 'an export leaves out what was discarded later',
    edits: [
      {
        file: SNAPSHOT,
        find: 'if (run.copiesAreZero !== undefined) {',
        replace: 'if (run.copiesAreZero === true) {',
      },
    ],
  },
  {
    name: 'clearing passes over what is zero only under the write buffer',
    breaks: 'an acknowledged write comes back after a later discard',
    about: 'buffer',
    edits: [
      {
        file: 'copy-on-write/buffered-reads.ts',
        find: 'yield* lessHeld(allocationOf(this.#device, offset, length), offset, held);',
        replace: 'yield* lessHeld(allocationOf(this.#device, offset, length), offset, held.slice(0, 0));',
      },
    ],
  },
];
