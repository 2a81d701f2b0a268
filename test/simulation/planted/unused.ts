/** Bugs in leaving out what nothing uses. */
import type { PlantedBug } from './bug.js';

const AREA = 'diff-area/diff-area.ts';
const CHAIN = 'diff-area/bitmap-chain.ts';
const BLOCKS = 'diff-area/unused-blocks.ts';
const UNUSED = 'snapshot/unused-space.ts';

/** The windows are short: a random crash seldom comes in them. */
const history = { name: 'a snapshot leaves out', layout: 'directory', statesMax: 64 } as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'bitmaps are in force before the control file names them',
    breaks: 'after a crash a snapshot has neither a copy nor a bitmap of blocks that were overwritten',
    outcomes: 4,
    edits: [
      {
        file: AREA,
        find: 'await name(offsetsOf(bitmaps, this.#file));',
        replace: 'this.#bitmaps = bitmaps;\n    await name(offsetsOf(bitmaps, this.#file));',
      },
    ],
  },
  {
    name: 'bitmaps are not flushed before the control file names them',
    breaks: 'after a power cut the control file names bitmaps that are not there',
    history,
    edits: [
      {
        file: CHAIN,
        find: 'chains[1], previous);\n  await file.device.flush();',
        replace: 'chains[1], previous);',
      },
    ],
  },
  {
    name: 'what older snapshots need is forgotten',
    breaks: 'a block that an older snapshot needs is overwritten without a copy',
    edits: [
      {
        file: UNUSED,
        find: 'const older = chain.records[chain.indexOf(record) - 1];',
        replace: 'const older = undefined as SnapshotRecord | undefined;',
      },
    ],
  },
  {
    name: 'what older snapshots need is forgotten at opening',
    breaks: 'after a reopening a block that an older snapshot needs is overwritten without a copy',
    edits: [
      {
        file: CHAIN,
        find: 'bothOf(own.bits, previous?.bits, blockCount)',
        replace: 'bothOf(own.bits, undefined, blockCount)',
      },
    ],
  },
  {
    name: 'the bits of a bitmap are taken in the wrong order',
    breaks: 'blocks are left out that were in use',
    edits: [
      {
        file: BLOCKS,
        find: '>>> (bit & 31)) & 1) === 1;',
        replace: '>>> (31 - (bit & 31))) & 1) === 1;',
      },
    ],
  },
  {
    name: 'bitmaps are one block off',
    breaks: 'blocks are left out that were in use',
    edits: [
      {
        file: BLOCKS,
        find: 'const bit = block % BLOCKS_PER_PAGE;',
        replace: 'const bit = (block + 1) % BLOCKS_PER_PAGE;',
      },
    ],
  },
  {
    name: 'what is left out is read from the volume',
    breaks: 'a snapshot shows what was written after it',
    edits: [
      {
        file: AREA,
        find: ' + (this.#bitmaps?.unused.collect(first, slots, owners, owner) ?? 0);',
        replace: ';',
      },
    ],
  },
  {
    name: 'bitmaps are not read at opening',
    breaks: 'what was left out is read from the volume after a reopening',
    edits: [{ file: 'diff-area/load.ts', find: '    bitmaps,\n', replace: '' }],
  },
  {
    name: 'the slots of bitmaps count as free after an opening',
    breaks: 'copies are written over the bitmaps',
    edits: [{ file: CHAIN, find: 'slots.use(slot);\n', replace: '\n' }],
  },
  {
    name: 'a creation returns while copies of what is left out are under way',
    breaks: 'a block that was read as zeros gets its copy afterwards',
    edits: [{ file: UNUSED, find: 'await copyOnWrite.drained(area);', replace: '' }],
  },
  {
    name: 'a creation returns while copies of what is left out may be committed or not',
    breaks: 'a block that was read as zeros has its copy after a reopening',
    unitTest: { file: 'engine/unused-space.test.ts', name: 'a copy of it whose commit has failed counts' },
    edits: [{ file: UNUSED, find: '  await commitUnderWay(context, record, area);\n', replace: '' }],
  },
  {
    name: 'bitmaps that the control file may name are left in doubt',
    breaks: 'blocks that were read as they were are zeros after a reopening',
    unitTest: { file: 'engine/unused-space.test.ts', name: 'bitmaps that may be named are named no more' },
    edits: [{ file: UNUSED, find: 'if (named) await unname(store, record, error);', replace: '' }],
  },
  {
    name: 'changed blocks leave out what only one of two snapshots skips',
    breaks: 'a block that reads otherwise is not reported',
    unitTest: { file: 'engine/unused-space.test.ts', name: 'changed blocks are those that read otherwise' },
    edits: [
      {
        file: 'volume/changed-blocks.ts',
        find: 'if (passed.every(({ unused }) => unused === undefined)) return',
        replace: 'return',
      },
    ],
  },
  {
    name: 'what is left out is said to be zero where there is a copy',
    breaks: 'exports leave out data',
    edits: [{ file: 'snapshot/allocation.ts', find: 'addTo(copied, skipped);', replace: '' }],
  },
  {
    name: 'a write overtakes the copy of a block that is skipped since',
    breaks: 'the copy has what is newer than the snapshot',
    unitTest: { file: 'engine/unused-space.test.ts', name: 'a write does not overtake the copy' },
    edits: [
      {
        file: 'copy-on-write/copy-on-write.ts',
        find: 'return area.unused !== undefined && this.#inFlight.get(block)?.area === area;',
        replace: 'return false;',
      },
    ],
  },
];

export const UNUSED_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'unused', ...bug }));
