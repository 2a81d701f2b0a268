/** Bugs in the table of a diff area: its chain on the device, its checksums, its watermark, and reading it again. */
import type { PlantedBug } from './bug.js';

const AREA = 'diff-area/diff-area.ts';
const CHAIN = 'diff-area/table-chain.ts';
const LOAD = 'diff-area/load.ts';
const WRITER = 'diff-area/table-writer.ts';

export const TABLE_BUGS: readonly PlantedBug[] = [
  {
    name: 'entries are not verified at recovery',
    breaks: 'an entry whose data did not get there counts as a copy',
    edits: [
      {
        file: LOAD,
        find: 'if (checksum.of(entry.block, entry.slot, data) === entry.checksum) {',
        replace: '{',
      },
    ],
  },
  {
    name: 'entries behind the watermark are dropped unread',
    breaks: 'the last copies before a crash are lost',
    edits: [
      {
        file: LOAD,
        find: 'if (checksum.of(entry.block, entry.slot, data) === entry.checksum) {',
        replace: 'if (entry.place < chain.watermark) {',
      },
    ],
  },
  {
    name: 'the checksum does not cover the epoch',
    breaks: 'entries of a deleted snapshot come back in a table block that was torn',
    smallBlocks: true,
    history: { name: 'a table goes on where that of a deleted snapshot was', layout: 'in-volume' },
    edits: [
      {
        file: 'diff-area/copy-checksum.ts',
        find: 'setBigUint64(ENTRY_CHECKED_SIZE, epoch, true)',
        replace: 'setBigUint64(ENTRY_CHECKED_SIZE, 0n, true)',
      },
    ],
  },
  {
    name: 'a table block of another diff area is accepted',
    breaks: 'a snapshot reads through the table of one that is gone',
    smallBlocks: true,
    history: { name: 'a table goes on where that of a deleted snapshot was', layout: 'in-volume' },
    edits: [
      {
        file: CHAIN,
        find: 'return header.extension?.epoch === this.#epoch ? { slot, header, image } : undefined;',
        replace: 'return { slot, header, image };',
      },
    ],
  },
  {
    name: 'the watermark is raised before the flush',
    breaks: 'entries count as durable that are not',
    edits: [
      {
        file: AREA,
        find: 'await this.#writer.write();\n  }\n\n  /** Makes everything',
        replace:
          'this.#writer.durable = this.#writer.places;\n    await this.#writer.write();\n  }\n\n  /** Makes everything',
      },
    ],
  },
  {
    name: 'the checksum over the entries of a table block is not verified',
    breaks: 'rot in an entry makes the snapshot read the volume instead',
    unitTest: { file: 'engine/found-defects.test.ts', name: 'a table entry that rots is never taken' },
    edits: [
      {
        file: CHAIN,
        find: 'if (entriesChecksum(image, 0, covered) !== stored) {',
        replace: 'if (false) {',
      },
    ],
  },
  {
    name: 'what the watermark says of the whole chain is ignored',
    breaks: 'rot in the header of a table block cuts the chain off',
    rot: true,
    smallBlocks: true,
    edits: [
      {
        file: CHAIN,
        find: 'this.#watermark = Math.max(this.#watermark, watermark);',
        replace: '',
      },
    ],
  },
  {
    name: 'dropped entries are not marked unused',
    breaks: 'they count as durable once the watermark has passed them',
    edits: [
      {
        file: LOAD,
        find: 'for (const { tail, index } of failed) encodeEntry(tail.image, entryPosition(index), UNUSED_ENTRY);',
        replace: '',
      },
    ],
  },
  {
    name: 'recovery does not flush what it found',
    breaks: 'copies found after a killed process are lost in a power cut',
    history: { name: 'what was copied before', layout: 'directory', orders: 6, statesMax: 16 },
    edits: [{ file: LOAD, find: 'await area.flush();\n', replace: '' }],
  },
  {
    name: 'recovery repairs nothing',
    breaks: 'entries that were dropped come back',
    edits: [
      {
        file: 'volume/open.ts',
        find: 'for (const repair of repairs) await repair();',
        replace: '',
      },
    ],
  },
  {
    name: 'slots of loaded copies count as free',
    breaks: 'copies are overwritten after a reopening',
    edits: [
      {
        file: CHAIN,
        find: 'this.#slots.use(slot);\n    if (kind',
        replace: "if (kind === 'overlay') this.#slots.use(slot);\n    if (kind",
      },
    ],
  },
  {
    name: 'slots of further table blocks count as free',
    breaks: 'the table is overwritten after a reopening',
    smallBlocks: true,
    edits: [
      {
        file: CHAIN,
        find: 'if (next !== undefined) this.#slots.use(slot);',
        replace: '',
      },
    ],
  },
  {
    name: 'a link to a table block that was never written is left',
    breaks: 'the slot it points to gets another use, and the chain does not open',
    smallBlocks: true,
    history: { name: 'with copies of zeros', layout: 'directory', statesMax: 64 },
    edits: [
      {
        file: LOAD,
        find: 'if (hasLooseEnd && last !== undefined) setNextOffset(last.image, 0);',
        replace: '',
      },
    ],
  },
  {
    name: 'a table block with a successor is not taken for full',
    breaks:
      'where a crash lost its last entries, those after them have other places afterwards, and the snapshot does not open',
    smallBlocks: true,
    edits: [
      {
        file: CHAIN,
        find: 'this.#openBlocks.push(next === undefined ? tail : this.#filledUp(tail));',
        replace: 'this.#openBlocks.push(tail);',
      },
    ],
  },
  {
    name: 'a new table block is not linked',
    breaks: 'entries after a full table block are lost',
    smallBlocks: true,
    edits: [
      {
        file: WRITER,
        find: 'setNextOffset(full.image, this.#file.runs.locate(offsetOfSlot(slot)));',
        replace: '',
      },
    ],
  },
  {
    name: 'the sector that an entry ends in is not written',
    breaks: 'entries are lost',
    edits: [
      {
        file: WRITER,
        find: 'const end = roundUp(block.to, SECTOR_SIZE);',
        replace: 'const end = Math.max(SECTOR_SIZE, Math.floor(block.to / SECTOR_SIZE) * SECTOR_SIZE);',
      },
    ],
  },
  {
    name: 'places are counted from the last block only',
    breaks: 'the watermark covers too little, and what it should cover is not known',
    smallBlocks: true,
    edits: [
      {
        file: WRITER,
        find: 'const before = full.before + full.used;',
        replace: 'const before = full.used;',
      },
    ],
  },
  {
    name: 'copies are not verified when they are read',
    breaks: 'rot is returned as data',
    rot: true,
    edits: [
      {
        file: 'diff-area/copy-reader.ts',
        find: 'if (this.#checksum.from(block, slot, sum) === this.#table.checksumAt(slot)) return;',
        replace: 'if (sum !== undefined) return;',
      },
    ],
  },
  {
    name: 'the zero block is not written at creation',
    breaks: 'other readers of the format read what the space held before',
    edits: [
      {
        file: 'diff-area/create.ts',
        find: 'for (const slot of [FixedSlot.otherLocation, FixedSlot.zeros])',
        replace: 'for (const slot of [FixedSlot.otherLocation])',
      },
    ],
  },
  {
    name: 'the zero block is handed out as a slot',
    breaks: 'copies of zeros read the copy of another block',
    edits: [
      {
        file: 'diff-area/create.ts',
        find: '[{ start: firstFree, length: slotCount - firstFree }]',
        replace:
          '[{ start: FixedSlot.zeros, length: 1 }, { start: firstFree, length: slotCount - firstFree }]',
      },
    ],
  },
];
