/** Bugs in what is copied within the volume. */
import type { PlantedBug } from './bug.js';

const AREA = 'diff-area/diff-area.ts';
const MOVES = 'diff-area/moves.ts';
const COPY = 'volume/copy-range.ts';
const READER = 'snapshot/reader.ts';
const SETTLE = 'snapshot/settle-moves.ts';
const OVERWRITTEN = { name: 'blocks move, and their sources are overwritten', layout: 'in-volume' } as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'a move is recorded before the volume is flushed',
    breaks: 'after a power cut the source is overwritten, and the target was never written',
    edits: [{ file: COPY, find: '  await device.flush();\n', replace: '' }],
    // In-volume the flush of the store is one of the volume.
    history: { ...OVERWRITTEN, layout: 'directory' },
  },
  {
    name: 'a move counts before a header vouches for it',
    breaks: 'a snapshot reads the target before it was written',
    edits: [
      {
        file: 'copy-on-write/move-records.ts',
        find: 'await area.flushProven();',
        replace: 'void area.flushProven();',
      },
    ],
    history: OVERWRITTEN,
  },
  {
    name: 'the header that vouches for a move is not written',
    breaks: 'the move is dropped at recovery, its source overwritten',
    edits: [
      {
        file: AREA,
        find: 'async flushProven(): Promise<void> {\n    await this.writeEntries();\n    await this.flush();\n    await this.writeWatermark();\n    await this.flush();',
        replace:
          'async flushProven(): Promise<void> {\n    await this.writeEntries();\n    await this.flush();',
      },
    ],
  },
  {
    name: 'the target of a copy is not protected',
    breaks: 'a snapshot loses what the target held',
    edits: [{ file: COPY, find: '  await copyOnWrite.protect(to, length);\n', replace: '' }],
  },
  {
    name: 'the target of a move is overwritten without a copy for its source',
    breaks: 'the source reads what was written to the target later',
    edits: [
      { file: AREA, find: '    if (this.moves.sourceOf(block) !== undefined) return true;\n', replace: '' },
    ],
  },
  {
    name: 'what a merge brought a copy of meanwhile moves all the same',
    breaks: 'its copy is replaced by what the target holds later',
    unitTest: { file: 'engine/copy-range.test.ts', name: 'what is merged while content is copied' },
    edits: [
      {
        file: 'copy-on-write/move-records.ts',
        find: 'moves.filter((move) => mayMove(area, move))',
        replace: 'moves',
      },
    ],
  },
  {
    name: 'what has a copy already moves all the same',
    breaks: 'its copy is replaced by what it holds now',
    edits: [
      {
        file: MOVES,
        find: 'return !table.has(from) && moves.targetOf(from) === undefined;',
        replace: 'return moves.targetOf(from) === undefined;',
      },
    ],
  },
  {
    name: 'what moves back is recorded as a move',
    breaks: 'the snapshot reads its own later content',
    edits: [
      {
        file: MOVES,
        find: 'return source !== to && moves.targetOf(source) === from;',
        replace: 'return moves.targetOf(source) === from;',
      },
      { file: MOVES, find: 'if (!table.has(to) || moves', replace: 'if (moves' },
      {
        file: MOVES,
        find: ' || moves.targetOf(to) !== undefined) return false;',
        replace: ') return false;',
      },
    ],
  },
  {
    name: 'chains of moves do not collapse',
    breaks: 'the first source is lost when its content moves on',
    edits: [
      {
        file: MOVES,
        find: 'const source = this.#sources.get(from) ?? from;\n    this.#sources.delete(from);',
        replace: 'const source = from;',
      },
    ],
  },
  {
    name: 'a copy of a target is loaded as one of the target itself',
    breaks: 'after a reopening both read wrong',
    edits: [
      {
        file: 'diff-area/table-chain.ts',
        find: 'const owner = this.#moves.ownerOfCopy(block);',
        replace: 'const owner = block;',
      },
    ],
  },
  {
    name: 'moves are not loaded',
    breaks: 'after a reopening a moved block reads what overwrote it',
    edits: [
      {
        file: 'diff-area/table-chain.ts',
        find: 'this.#moves.add({ from: block, to: slot as number });',
        replace: '',
      },
    ],
  },
  {
    name: 'the checksum of a copy of a target is kept as it is',
    breaks: 'a sound copy counts as damaged',
    edits: [
      {
        file: AREA,
        find: 'const own = owner === block ? checksum : this.#checksum.rebased(checksum, block, owner);',
        replace: 'const own = checksum;',
      },
    ],
  },
  {
    name: 'a snapshot reads a moved block where it was',
    breaks: 'it reads what overwrote the source',
    edits: [
      { file: READER, find: 'if (moves === undefined || moves.size === 0) continue;', replace: 'continue;' },
    ],
  },
  {
    name: 'an older snapshot asks the same snapshot again for the target of a move',
    breaks: 'it reads the former content of the target',
    edits: [{ file: READER, find: 'placeOf(areas, i + 1, target)', replace: 'placeOf(areas, i, target)' }],
  },
  {
    name: 'a reader of a moved block does not look again',
    breaks: 'it gets what overwrote the target meanwhile',
    edits: [
      {
        file: READER,
        find: '.then(() => this.#checkMoved(place.block, start, end))',
        replace: '',
      },
    ],
  },
  {
    name: 'changed blocks leave out what moved away',
    breaks: 'an incremental backup misses what overwrote the source',
    edits: [
      {
        file: 'volume/changed-blocks.ts',
        find: 'flatMap((area) => [...foundIn(area), area.moves])',
        replace: 'flatMap((area) => [...foundIn(area)])',
      },
    ],
  },
  {
    name: 'what the volume knows to be zero counts for a block that moved away',
    breaks: 'an export leaves data out',
    edits: [{ file: 'snapshot/allocation.ts', find: '    moves.addPresence(page, own);\n', replace: '' }],
  },
  {
    name: 'a target that lies behind what is still to be copied is written first',
    breaks: 'an overlapping copy copies what it has just written',
    smallBlocks: true,
    edits: [{ file: COPY, find: 'return to > from ? parts.reverse() : parts;', replace: 'return parts;' }],
  },
  {
    name: 'a newer snapshot skips what a block of an older one moved to',
    breaks: 'the older one reads zeros',
    edits: [
      {
        file: 'snapshot/unused-space.ts',
        find: 'for (const block of older.area.moves.targets())',
        replace: 'for (const block of [] as number[])',
      },
    ],
  },
  {
    name: 'a snapshot with moves is merged',
    breaks: 'its elder misses what moved',
    edits: [{ file: 'snapshot/chain.ts', find: '[record, elder].filter', replace: '[elder].filter' }],
  },
  {
    name: 'a copy that spent a move is merged as one of the target',
    breaks: 'the elder misses the source',
    edits: [
      {
        file: 'snapshot/merge.ts',
        find: '[block, ...moves.ownersOfCopies(block)]',
        replace: '[block]',
      },
    ],
  },
  {
    name: 'two deletions settle the same move',
    breaks: 'the second copy counts as one of the target',
    edits: [{ file: SETTLE, find: 'if (moves.some(', replace: 'if (false && moves.some(' }],
    history: { name: 'two snapshots whose elder has moves are deleted at once', layout: 'directory' },
  },
  {
    name: 'a snapshot is deleted before the moves that were settled for it are durable',
    breaks: 'after a power cut the elder asks for what is not there',
    edits: [
      {
        file: SETTLE,
        find: '        await area.writeEntries();\n        await area.flush();\n',
        replace: '        await area.writeEntries();\n',
      },
    ],
    history: { name: 'a snapshot is deleted whose elder has moves', layout: 'directory' },
  },
  {
    name: 'a copy whose commit failed is entered again',
    breaks: 'the second one of a target counts as its own',
    unitTest: {
      file: 'engine/space-policies.test.ts',
      name: 'a commit that finds the host full leaves copies',
    },
    edits: [
      {
        file: 'copy-on-write/copy-on-write.ts',
        find: 'if (area.uncommitted.has(block)) return this.#commitAgain(area, block);',
        replace: '',
      },
    ],
  },
  {
    name: 'a move that is settled is copied from where it was',
    breaks: 'the source reads what overwrote it',
    edits: [
      {
        file: SETTLE,
        find: 'await readSnapshot(() => chain.areasFrom(record), device, offsetOfBlock(from), block);',
        replace: 'await device.read(offsetOfBlock(from), block);',
      },
    ],
  },
  {
    name: 'a revert leaves out what moved away',
    breaks: 'what overwrote the source stays in the volume',
    history: { name: 'of which blocks moved', layout: 'directory', statesMax: 8 },
    edits: [
      {
        file: 'snapshot/pending-blocks.ts',
        find: '    this.add(moves, table.blockCount);\n',
        replace: '',
      },
    ],
  },
  {
    name: 'what is copied while the volume is put back counts as moved',
    breaks: 'a snapshot reads what was not in the volume yet',
    edits: [
      {
        file: COPY,
        find: 'live.putBack === undefined ? copyOnWrite.target : undefined',
        replace: 'copyOnWrite.target',
      },
    ],
  },
  {
    name: 'content moves while a newer snapshot is being merged',
    breaks: 'the elder reads the former content of the target',
    edits: [{ file: 'copy-on-write/copy-on-write.ts', find: ' && this.#merging.length === 0', replace: '' }],
  },
  {
    name: 'of what is cut off a deleted snapshot, a move may go before the copy that spent it',
    breaks: 'a crash leaves a copy of what moved that passes for one of the block itself',
    smallBlocks: true,
    history: { name: 'a deleted snapshot is cut off where it has a move', layout: 'directory', statesMax: 8 },
    edits: [
      {
        file: 'diff-area/table-backwards.ts',
        find: 'let spent = await this.#lastSpentMove(end);',
        replace: 'let spent: number | undefined;',
      },
    ],
  },
];

export const MOVE_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'copies', ...bug }));
