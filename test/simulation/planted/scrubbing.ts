/** Bugs in scrubbing: damage that is none, and repair that does damage. */
import type { PlantedBug } from './bug.js';

const COPIES = 'scrub/copies.ts';

export const SCRUBBING_BUGS: readonly PlantedBug[] = [
  {
    name: 'a scrub reads copies of a snapshot that is being freed',
    breaks: 'what is read is no copy any more, and told as damage',
    edits: [
      {
        file: COPIES,
        find: 'step(() => record.whileThere(() => testNeeded(area, block, count, isNeeded)))',
        replace: 'step(() => testNeeded(area, block, count, isNeeded))',
      },
    ],
  },
  {
    name: 'a scrub takes what a merge gave back for damage',
    breaks: 'copies that nobody needs are told as bad ones',
    edits: [
      { file: COPIES, find: 'record.deleted === undefined ||\n', replace: 'record.deleted !== null ||\n' },
    ],
  },
  {
    name: 'a copy is repaired without proof',
    breaks: 'a device that fails for a moment costs a copy',
    edits: [
      {
        file: 'scrub/repair.ts',
        find: '.catch(unlessUnreadable);\n    if (isIt()) return bytes;\n  }\n  for',
        replace: '.catch(unlessUnreadable);\n    return bytes;\n  }\n  for',
      },
    ],
  },
];
