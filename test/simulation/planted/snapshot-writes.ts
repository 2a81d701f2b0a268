/** Bugs in writing to snapshots themselves. */
import type { PlantedBug } from './bug.js';

const AREA = 'diff-area/diff-area.ts';
const OVERLAYS = 'diff-area/overlays.ts';
const LOAD = 'diff-area/load.ts';
const CHAIN = 'diff-area/table-chain.ts';
const WRITES = 'snapshot/writes.ts';
const FLUSH = 'snapshot/flush-overlays.ts';
const SNAPSHOT = 'volume/stored-snapshot.ts';
const HISTORY = 'volume/stored-history.ts';

const MEETS = { name: 'a flush of a snapshot meets writes to it', layout: 'directory' } as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'a flush of a snapshot does not wait for the header that vouches for its entries',
    breaks: 'what was flushed is dropped at recovery',
    edits: [
      {
        file: FLUSH,
        find: 'await area.flushProven();',
        replace: 'await area.writeEntries();\n    await area.flush();',
      },
    ],
  },
  {
    name: 'the header that vouches for entries of a snapshot is not flushed',
    breaks: 'what was flushed is dropped after a power cut',
    edits: [
      {
        file: FLUSH,
        find: 'await area.flushProven();',
        replace: 'await area.writeEntries();\n    await area.flush();\n    await area.writeWatermark();',
      },
    ],
    history: MEETS,
  },
  {
    name: 'the header vouches for entries of a snapshot before they are flushed',
    breaks: 'a snapshot reads noise where it was written',
    edits: [
      {
        file: AREA,
        find: 'async flushProven(): Promise<void> {\n    await this.writeEntries();\n    await this.flush();',
        replace: 'async flushProven(): Promise<void> {\n    this.#writer.durable = this.#writer.places;',
      },
    ],
    history: MEETS,
  },
  {
    name: 'entries of a snapshot count before a header vouches for them',
    breaks: 'a snapshot reads noise where it was written',
    edits: [
      {
        file: LOAD,
        find: 'if (entry.wellFormed && entry.place < chain.watermark) {',
        replace: 'if (entry.wellFormed) {',
      },
    ],
    history: MEETS,
  },
  {
    name: 'slots of what was written to a snapshot count as free when it is loaded',
    breaks: 'a copy overwrites it',
    edits: [
      {
        file: CHAIN,
        find: 'this.#slots.use(slot);\n    if (kind',
        replace: "if (kind === 'copy') this.#slots.use(slot);\n    if (kind",
      },
    ],
  },
  {
    name: 'a later entry of a snapshot replaces the sectors of an earlier one',
    breaks: 'what was flushed first is lost',
    edits: [
      {
        file: OVERLAYS,
        find: 'const all = (this.sectorsOf(block) | sectors) >>> 0;',
        replace: 'const all = sectors;',
      },
    ],
  },
  {
    name: 'a flush of a snapshot leaves out sectors that were written to a block with an entry',
    breaks: 'what was flushed is lost',
    edits: [
      {
        file: OVERLAYS,
        find: '(this.sectorsOf(block) & ~this.#entered.get(slot)) === 0) return false;',
        replace: 'this.#entered.get(slot) !== 0) return false;',
      },
    ],
  },
  {
    name: 'an older snapshot sees what was written to a newer one',
    breaks: 'an older snapshot changes',
    edits: [
      {
        file: 'snapshot/reader.ts',
        find: 'await new Reading(areas, volume, offset, target, apart).run();',
        replace:
          'await new Reading(areas, volume, offset, target, apart).run();\n  for (const { overlays } of areas().slice(1))\n    for (const block of overlays.blocks()) {\n      const [from, to] = [Math.max(offset, offsetOfBlock(block)), Math.min(offset + target.byteLength, offsetOfBlock(block + 1))];\n      if (from < to) await overlays.layOver(block, from - offsetOfBlock(block), target.subarray(from - offset, to - offset));\n    }',
      },
    ],
  },
  {
    name: 'two writers of one block of a snapshot each take a slot',
    breaks: 'one of the two is lost',
    edits: [
      {
        file: WRITES,
        find: 'const turn = before === undefined ? action() : before.then(action);',
        replace: 'const turn = action();',
      },
    ],
  },
  {
    name: 'a snapshot shows sectors before they are written',
    breaks: 'a reader gets noise',
    edits: [
      {
        file: WRITES,
        find: 'await this.#area.overlays.write(slot, from, data);\n          unused = this.#show(block, slot, sectors, reserved);',
        replace:
          'unused = this.#show(block, slot, sectors, reserved);\n          await this.#area.overlays.write(slot, from, data);',
      },
    ],
    history: MEETS,
  },
  {
    name: 'a snapshot knows places to be zero that were written to it',
    breaks: 'an export leaves data out',
    edits: [{ file: SNAPSHOT, find: 'this.#written(offset, length))', replace: '[])' }],
  },
  {
    name: 'changed blocks leave out what was written to the snapshots themselves',
    breaks: 'an incremental backup differs from the snapshot',
    edits: [
      {
        file: HISTORY,
        find: 'blocksChanged(passed, areas(later)), ...written]',
        replace: 'blocksChanged(passed, areas(later))]',
      },
    ],
  },
  {
    name: 'a close does not flush what was written to snapshots',
    breaks: 'what was acknowledged is lost by a clean close',
    edits: [{ file: HISTORY, find: 'if (this.#writable) await this.#flushSnapshots();', replace: '' }],
  },
  {
    name: 'a revert leaves out what was written to the snapshot that the volume goes back to',
    breaks: 'the volume does not become what the snapshot reads as',
    edits: [
      {
        file: 'snapshot/revert-state.ts',
        find: '  if (older.area !== undefined) pending.add(older.area.overlays, older.area.table.blockCount);\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a snapshot is written while the volume is put back to it',
    breaks: 'the volume becomes a mixture',
    edits: [
      { file: WRITES, find: 'if (this.#context.chain.keeping.isNeeded(record))', replace: 'if (false)' },
    ],
  },
];

export const SNAPSHOT_WRITE_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'writes', ...bug }));
