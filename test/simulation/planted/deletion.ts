/** Bugs in deleting snapshots that older ones read through. */
import type { PlantedBug } from './bug.js';

const MERGE = 'snapshot/merge.ts';
const CHAIN = 'snapshot/chain.ts';
const COPYING = 'copy-on-write/copy-on-write.ts';
const BACKWARDS = 'diff-area/table-backwards.ts';

/** Takes away what would notice by itself. */
const NOT_CHECKED = { file: MERGE, find: 'checkAllMerged(this.#from.area, area);', replace: '' };

/** Random crashes seldom come between two steps of a cut. */
const IN_GROUPS = {
  name: 'a deleted snapshot is merged in groups',
  layout: 'directory',
  statesMax: 16,
} as const;

/** A cut goes through a move. */
const SPENT = {
  name: 'a deleted snapshot is cut off where it has a move',
  layout: 'directory',
  statesMax: 8,
} as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'a merge forgets some blocks',
    breaks: 'older snapshots read them from the volume',
    edits: [
      NOT_CHECKED,
      {
        file: MERGE,
        find: 'table.slotOf(owner) === slot && elder.needs(owner)',
        replace: 'table.slotOf(owner) === slot && elder.needs(owner) && owner % 5 !== 3',
      },
    ],
  },
  {
    name: 'a merge ends one group too early',
    breaks: 'older snapshots read blocks from the volume',
    edits: [
      NOT_CHECKED,
      { file: MERGE, find: 'else if (this.#end > 0)', replace: 'else if (this.#end > 2)' },
    ],
  },
  {
    name: 'a merge replaces copies that the elder has itself',
    breaks: 'the elder shows what was written after it was taken',
    edits: [
      {
        file: MERGE,
        find: 'table.slotOf(owner) === slot && elder.needs(owner)',
        replace: 'table.slotOf(owner) === slot',
      },
    ],
  },
  {
    name: 'merged copies are not flushed before the deleted snapshot goes',
    breaks: 'a power cut loses them',
    edits: [
      {
        file: MERGE,
        find: 'await area.writeEntries();\n          await area.flush();',
        replace: 'await area.writeEntries();',
      },
    ],
  },
  {
    name: 'merged copies have the checksum of the diff area that they come from',
    breaks: 'they cannot be read',
    edits: [
      {
        file: MERGE,
        find: 'area.checksum(block, newSlots[i] ?? 0, dataAt(i))',
        replace: 'this.#from.area.checksum(block, newSlots[i] ?? 0, dataAt(i))',
      },
    ],
  },
  {
    name: 'a deleted snapshot is merged into the oldest, not into its neighbour',
    breaks: 'the snapshots between read blocks from the volume',
    edits: [
      NOT_CHECKED,
      {
        file: 'snapshot/chain-order.ts',
        find: 'elder: records[index - 1] };',
        replace: 'elder: index < 1 ? undefined : records[0] };',
      },
      {
        file: CHAIN,
        find: 'if (index < 1 || this.#records[index - 1] !== elder) return false;',
        replace: 'if (index < 1) return false;',
      },
    ],
  },
  {
    name: 'a block that the deleted newest snapshot has is copied again',
    breaks: 'its elder gets what was written later',
    edits: [
      {
        file: COPYING,
        find: 'for (const { table } of this.#merging) if (table.has(block)) return false;',
        replace: '',
      },
    ],
  },
  {
    name: 'copies on their way to the deleted newest snapshot are given up',
    breaks: 'its elder has no copy of what is overwritten next',
    edits: [{ file: COPYING, find: ' || this.#merging.includes(area);', replace: ';' }],
  },
  {
    name: 'the elder of the deleted newest snapshot takes no copies',
    breaks: 'it changes',
    edits: [
      {
        file: CHAIN,
        find: 'record.markDeleted(reason);\n    this.retarget(copyOnWrite);',
        replace: 'record.markDeleted(reason);\n    this.#areasFrom.clear();',
      },
      {
        file: CHAIN,
        find: 'this.#removals++;\n      this.retarget(copyOnWrite);',
        replace: 'this.#removals++;\n      this.#areasFrom.clear();',
      },
    ],
  },
  {
    name: 'a merge begins while copies are on their way to the deleted snapshot',
    breaks: 'they are not merged',
    smallBlocks: true,
    edits: [NOT_CHECKED, { file: MERGE, find: 'await copyOnWrite.drained(area);', replace: '' }],
  },
  {
    name: 'a deletion is told before it is durable',
    breaks: 'the snapshot is back after a power cut',
    edits: [
      {
        file: CHAIN,
        find: 'await twice(() => this.#control.setState(record.id, { set: SnapshotState.deleting }));',
        replace:
          'void twice(() => this.#control.setState(record.id, { set: SnapshotState.deleting })).catch(() => undefined);',
      },
    ],
  },
  {
    name: 'opening forgets that a snapshot is being deleted',
    breaks: 'a deleted snapshot is back after a crash',
    edits: [
      {
        file: 'volume/open.ts',
        find: "if (isDeleting(entry)) loaded.record.markDeleted('requested');",
        replace: '',
      },
    ],
  },
  {
    name: 'the snapshot after a deleted one does not say what comes before it',
    breaks: 'the store does not open any more',
    edits: [
      {
        file: CHAIN,
        find: 'await twice(() => this.#control.update(next.id, { elderOrder: elder.item.order }));',
        replace: '',
      },
    ],
  },
  {
    name: 'the space of a deleted snapshot is free while older ones are being read',
    breaks: 'a read fails, or shows what was put there since',
    unitTest: { file: 'engine/deletion.test.ts', name: 'gives its space to others only when' },
    edits: [{ file: CHAIN, find: 'record, area, readers, async', replace: 'record, area, [], async' }],
  },
  {
    name: 'what is merged is cut off while older ones are being read',
    breaks: 'a read fails, or shows what was put there since',
    smallBlocks: true,
    edits: [
      {
        file: MERGE,
        find: 'await Promise.all(chain.readersThrough(record).map((reader) => reader.unread()));',
        replace: '',
      },
    ],
  },
  {
    name: 'a table is cut before its headers say so',
    breaks: 'a crash leaves a table that counts as damaged',
    smallBlocks: true,
    history: IN_GROUPS,
    edits: [
      {
        file: BACKWARDS,
        find: 'await this.#writeHeader(index, image, end);\n    await device.flush();',
        replace: 'await this.#writeHeader(index, image, end);',
      },
    ],
  },
  {
    name: 'a file is cut before its table',
    breaks: 'copies that are left without the moves that they spent pass for copies of the blocks themselves',
    smallBlocks: true,
    history: SPENT,
    edits: [
      {
        file: BACKWARDS,
        find: 'await this.#writeFrom(index, image, entryPosition(used));\n    await device.flush();',
        replace: '',
      },
    ],
  },
];

export const DELETION_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'deletion', ...bug }));
