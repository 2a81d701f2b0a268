/** Bugs in what holds the space: growth, trimming, location lists, deletion, the reserve of an in-volume store. */
import type { PlantedBug } from './bug.js';

const SLOTS = 'diff-area/area-slots.ts';
const ENDS = 'snapshot/area-ends.ts';
const CHAIN = 'snapshot/chain.ts';
const FREEING = 'snapshot/freeing.ts';
const IN_VOLUME = 'store/in-volume-store.ts';

export const SPACE_BUGS: readonly PlantedBug[] = [
  {
    name: 'a location list is rewritten in place',
    breaks: 'a torn list leaves a snapshot without its runs',
    edits: [
      {
        file: SLOTS,
        find: 'inForce[0] === FixedSlot.location ? FixedSlot.otherLocation : FixedSlot.location;',
        replace: 'inForce[0] ?? FixedSlot.location;',
      },
    ],
  },
  {
    name: 'a location list is put in force before it is durable',
    breaks: 'the control file names a list that is not there',
    edits: [
      {
        file: SLOTS,
        find: 'await this.#file.device.flush();\n    } catch (error) {\n      await undo();',
        replace: '} catch (error) {\n      await undo();',
      },
    ],
  },
  {
    name: 'slots of a growth are used before the location list is in force',
    breaks: 'copies lie outside of the file after a crash',
    edits: [
      {
        file: SLOTS,
        find: 'const replaced = await this.#replaceList(\n      grown,',
        replace:
          'this.#file.runs.append(pieces);\n    this.#free.add(first + fromNew, added - fromNew);\n    const replaced = await this.#replaceList(\n      grown,',
      },
      {
        file: SLOTS,
        find: '    this.#file.runs.append(pieces);\n    this.#free.add(first + fromNew, added - fromNew);\n    this.putBack(replaced);',
        replace: '    this.putBack(replaced);',
      },
    ],
  },
  {
    name: 'a growth is not recorded in the control file',
    breaks: 'copies lie outside of the file after a reopening',
    edits: [
      {
        file: ENDS,
        find: 'area.grow(length, (change) => this.#control.update(record.id, change)),',
        replace: 'area.grow(length, async () => undefined),',
      },
    ],
  },
  {
    name: 'the slots of a longer location list count as free too',
    breaks: 'a location list is overwritten by copies',
    smallBlocks: true,
    edits: [
      {
        file: SLOTS,
        find: 'this.#free.add(first + fromNew, added - fromNew);',
        replace: 'this.#free.add(first, added);',
      },
    ],
  },
  {
    name: 'slots of the location list in force are free before it is replaced',
    breaks: 'the list in force is overwritten, and a crash leaves none',
    unitTest: { file: 'engine/area-slots.test.ts', name: 'the list in force stays as it is' },
    edits: [
      {
        file: SLOTS,
        find: 'try {\n      await record({ locationOffset: runs',
        replace: 'this.putBack(inForce.slice(1));\n    try {\n      await record({ locationOffset: runs',
      },
      { file: SLOTS, find: 'return inForce.slice(1);', replace: 'return [];' },
    ],
  },
  {
    name: 'slots of a loaded location list count as free',
    breaks: 'the list is overwritten after a reopening',
    smallBlocks: true,
    edits: [
      {
        file: 'diff-area/load.ts',
        find: 'for (const slot of listSlots) slots.use(slot);',
        replace: '',
      },
    ],
  },
  {
    name: 'a trim takes slots that are promised to table blocks',
    breaks: 'a commit finds no room for its entries',
    unitTest: { file: 'engine/area-slots.test.ts', name: 'a trim leaves what is spoken for' },
    edits: [
      {
        file: SLOTS,
        find: 'this.#free.total - this.spokenFor - (locat',
        replace: 'this.#free.total - (locat',
      },
    ],
  },
  {
    name: 'a trim gives space back before the shorter list is in force',
    breaks: 'after a crash two files have the same space, or one ends early',
    edits: [
      {
        file: SLOTS,
        find: 'const forList = this.take(locationBlocksFor(shorter.list.length) - 1) ?? [];',
        replace:
          'const forList = this.take(locationBlocksFor(shorter.list.length) - 1) ?? [];\n    await this.#file.giveBack(this.#file.runs.truncate(shorter.size));',
      },
      {
        file: SLOTS,
        find: 'this.putBack(replaced);\n    await this.#file.giveBack(this.#file.runs.truncate(shorter.size));',
        replace: 'this.putBack(replaced);',
      },
    ],
  },
  {
    name: 'a deleted snapshot grows once more',
    breaks: 'space that nobody owns',
    about: 'deletion',
    edits: [
      {
        file: ENDS,
        find: 'if (record.isGone || record.hasStandIn) return false;',
        replace: 'if (record.hasStandIn) return false;',
      },
    ],
  },
  {
    name: 'the space of a deleted snapshot is free before its deletion is durable',
    breaks: 'a crash brings the snapshot back without its copies',
    edits: [
      {
        file: CHAIN,
        find: "if (wasVisible) this.#emit('deleting', { id: record.id, reason, cause });",
        replace:
          "if (wasVisible) this.#emit('deleting', { id: record.id, reason, cause });\n    if (record.area !== undefined && copyOnWrite.target !== record.area) await this.#freeing.now(record, record.area, [record]);",
      },
      {
        file: CHAIN,
        find: 'else await this.#freeing.now(record, area, readers);',
        replace: '',
      },
    ],
  },
  {
    name: 'the space of a deleted snapshot is free while it is read',
    breaks: 'a reader sees damage instead of a deletion',
    about: 'deletion',
    edits: [
      { file: FREEING, find: 'await Promise.all(readers.map((reader) => reader.unread()));', replace: '' },
    ],
  },
  {
    name: 'the space of a deleted snapshot is free while copies go there',
    breaks: 'a late copy overwrites what another snapshot put there',
    about: 'deletion',
    edits: [{ file: CHAIN, find: '() => copyOnWrite.drained(area)', replace: 'async () => undefined' }],
  },
  {
    name: 'the space of a deleted snapshot is never given back',
    breaks: 'space leaks',
    edits: [{ file: FREEING, find: 'await record.resizing.runExclusive(() => area.remove());', replace: '' }],
  },
  {
    name: 'a snapshot that could not be taken leaves its file behind',
    breaks: 'space leaks',
    edits: [
      {
        file: 'snapshot/create.ts',
        find: 'if (this.#file === undefined || gate.failure !== undefined) return;',
        replace: 'return;',
      },
    ],
  },
  {
    name: 'files that no snapshot owns stay',
    breaks: 'space leaks after a crash',
    edits: [
      {
        file: 'store/directory-store.ts',
        find: 'for (const name of orphans) await this.folder.remove(name);',
        replace: '',
      },
    ],
  },
  {
    name: 'the runs of loaded diff areas count as free',
    breaks: 'two snapshots have the same space after a reopening',
    edits: [{ file: IN_VOLUME, find: 'for (const run of list.runs.list) this.#claim(run);', replace: '' }],
  },
  {
    name: 'the name of a new diff-area file is not made durable',
    breaks: 'a snapshot loses its file in a power cut',
    edits: [
      {
        file: 'store/directory-store.ts',
        find: 'await Promise.all([this.device.flush(), this.folder.sync()]);',
        replace: 'await this.device.flush();',
      },
    ],
  },
];
