/** Bugs in scrubbing: what is found, in whom it matters, and what is put right. */
import type { PlantedBug } from './bug.js';

const COPIES = 'scrub/copies.ts';
const REPAIR = 'scrub/repair.ts';
const STORED = 'scrub/stored.ts';

const BUGS: readonly PlantedBug[] = [
  {
    name: 'of neighbouring copies a scrub tests the first',
    breaks: 'rot in the others is overlooked',
    edits: [
      {
        file: COPIES,
        find: 'new Uint8Array(count * BLOCK_SIZE));\n      return [];',
        replace: 'new Uint8Array(BLOCK_SIZE));\n      return [];',
      },
    ],
  },
  {
    name: 'a scrub names older snapshots that have a copy of their own',
    breaks: 'a snapshot is said to be damaged that is not',
    edits: [{ file: COPIES, find: 'if (at < index && hasOwn(record.area, block)) break;', replace: '' }],
  },
  {
    name: 'a scrub names only the snapshot that has the copy',
    breaks: 'nobody is told of the older ones that read it too',
    edits: [
      {
        file: COPIES,
        find: 'for (let at = index; at >= 0; at--) {',
        replace: 'for (let at = index; at >= index; at--) {',
      },
    ],
  },
  {
    name: 'a copy is put right with what the volume holds, whatever its checksum says',
    breaks: 'a bit of a copy is rotten, and all of it is lost',
    edits: [
      {
        file: REPAIR,
        find: 'if (isIt()) return bytes;\n  }\n  for',
        replace: 'return bytes;\n  }\n  for',
      },
    ],
  },
  {
    name: 'a repair writes into the slot after that of the copy',
    breaks: 'a copy that was right is overwritten',
    edits: [
      {
        file: REPAIR,
        find: 'await area.writeData([slot], [bytes]);',
        replace:
          'await area.writeData([(block !== undefined && area.table.has(block + 1) ? area.table.slotOf(block + 1) : slot) as typeof slot], [bytes]);',
      },
    ],
  },
  {
    name: 'the table that takes copies is not compared with its device',
    breaks: 'rot in it is found at the next opening, when it is too late',
    edits: [
      {
        file: STORED,
        find: 'const compared = isNewest ? compareMoving(record, area, look) : compare(record, area, look);',
        replace:
          'const compared = isNewest ? Promise.resolve<Problem[]>([]) : compare(record, area, look);\n  void compareMoving;',
      },
    ],
  },
  {
    name: 'the control file is not compared with what was written to it',
    breaks: 'rot in it is found at the next opening, when it is too late',
    edits: [
      {
        file: STORED,
        find: 'tell(await checkControl(parts.control, walk));',
        replace: 'void checkControl;',
      },
    ],
  },
];

export const SCRUBBING_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ rot: true, ...bug }));
