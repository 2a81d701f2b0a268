/** Bugs in putting a volume back to a snapshot. */
import type { PlantedBug } from './bug.js';

const PUT_BACK = 'snapshot/put-back.ts';
const REVERT = 'snapshot/revert.ts';
const STATE = 'snapshot/revert-state.ts';
const MARKS = 'diff-area/revert-marks.ts';

/** A random crash seldom comes while a revert is being cancelled, or ends. */
const CANCELLED = { name: 'a revert that is cancelled', layout: 'directory', statesMax: 32 } as const;
const ENDED = { name: 'a revert to its end', layout: 'directory', statesMax: 32 } as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'a block is marked done before it is durable',
    breaks: 'a block is neither put back nor what was written to it',
    edits: [{ file: 'snapshot/done-marks.ts', find: 'await this.#volume.flush();', replace: '' }],
  },
  {
    name: 'a change of a block that is to be put back is acknowledged without a mark',
    breaks: 'after a crash the block is put back over a flushed write',
    edits: [{ file: PUT_BACK, find: 'await this.#marks?.record(first, count);', replace: '' }],
  },
  {
    name: 'a mark is not flushed',
    breaks: 'after a crash the block is put back over a flushed write',
    edits: [
      {
        file: 'snapshot/done-marks.ts',
        find: 'await this.#area.writeEntries();\n    await this.#area.flush();',
        replace: 'await this.#area.writeEntries();',
      },
    ],
  },
  {
    name: 'marks are not looked at when the volume is opened again',
    breaks: 'a block is put back over a flushed write',
    edits: [
      {
        file: STATE,
        find: 'for (const { first, count } of done) pending.delete(first, count);',
        replace: '',
      },
    ],
  },
  {
    name: 'a read of a block that is to be put back goes to the volume',
    breaks: 'the volume does not read as the snapshot',
    edits: [
      {
        file: 'snapshot/live-device.ts',
        find: 'return putBack === undefined ? this.#device.read(offset, target) : putBack.read(offset, target);',
        replace: 'return this.#device.read(offset, target);',
      },
    ],
  },
  {
    name: 'a part of a block is written without the rest before it',
    breaks: 'the rest of the block is as before the revert',
    edits: [
      {
        file: PUT_BACK,
        find: 'const before = run.first === first ? await this.#sourceBytes(blockStart, offset) : NOTHING;',
        replace: 'const before = run.first === blockStart && first < 0 ? NOTHING : NOTHING;',
      },
    ],
  },
  {
    name: 'two changes of a block fill it up at once',
    breaks: 'one of them is lost under the filling of the other',
    edits: [{ file: PUT_BACK, find: 'if (claim !== undefined) return claim;', replace: '' }],
  },
  {
    name: 'a block is put back while a user changes it',
    breaks: 'an acknowledged write is lost',
    edits: [
      {
        file: PUT_BACK,
        find: 'return this.pending.has(block) && !this.#claims.has(block);',
        replace: 'return this.pending.has(block);',
      },
      {
        file: PUT_BACK,
        find: 'while (block !== undefined && this.#claims.has(block)) block',
        replace: 'while (block !== undefined && first < 0) block',
      },
      {
        file: PUT_BACK,
        find: '#nextFree(from: BlockNumber, end: BlockNumber): BlockNumber | undefined {',
        replace:
          '#nextFree(from: BlockNumber, end: BlockNumber): BlockNumber | undefined {\n    const first = 0;',
      },
    ],
  },
  {
    name: 'blocks are put back past the filter',
    breaks: 'the snapshot of the state before loses its blocks',
    edits: [
      {
        file: PUT_BACK,
        find: 'const copies = protect(offset, end - offset);',
        replace: 'const copies = offset < 0 ? protect(offset, end - offset) : undefined;',
      },
    ],
  },
  {
    name: 'the target of a revert is not flagged',
    breaks: 'after a crash the revert is forgotten',
    edits: [
      {
        file: REVERT,
        find: 'await this.#flag(target, true);\n          } catch',
        replace: '} catch',
      },
    ],
  },
  {
    name: 'a revert ends with a block to put back',
    breaks: 'that block is as before the revert',
    edits: [{ file: REVERT, find: 'putBack.pending.count === 0)', replace: 'putBack.pending.count <= 1)' }],
  },
  {
    name: 'what was copied while a revert began is not put back',
    breaks: 'these blocks are as before the revert',
    edits: [{ file: REVERT, find: 'for (const newer of latest) pending.addArea(newer);', replace: '' }],
  },
  {
    name: 'a revert begins with the writes that are held let go',
    breaks: 'a write that came after is put back over',
    edits: [
      {
        file: REVERT,
        find: "this.#set({ target, previous, area, phase: 'reverting', pending, total: pending.count });",
        replace:
          "void Promise.resolve().then(async () => {\n            for (let i = 0; i < 40; i++) await Promise.resolve();\n            this.#set({ target, previous, area, phase: 'reverting', pending, total: pending.count });\n          });",
      },
    ],
  },
  {
    name: 'a cancelled revert is forgotten by a crash',
    breaks: 'the volume goes back to the snapshot after all',
    smallBlocks: true,
    history: CANCELLED,
    edits: [{ file: MARKS, find: 'this.cancelledAt = place;\n    this.done = [];', replace: '' }],
  },
  {
    name: 'marks of a revert count when it was cancelled',
    breaks: 'what had been put back stays',
    smallBlocks: true,
    history: CANCELLED,
    edits: [{ file: MARKS, find: '    this.done = [];\n  }', replace: '  }' }],
  },
  {
    name: 'what was written after a cancel is put back too',
    breaks: 'a flushed write is lost',
    smallBlocks: true,
    history: CANCELLED,
    edits: [{ file: STATE, find: 'for (const block of copiedLater) pending.delete(block, 1);', replace: '' }],
  },
  {
    name: 'a snapshot that a revert needs is deleted',
    breaks: 'what was not put back is lost',
    edits: [
      {
        file: 'snapshot/keeping.ts',
        find: 'return this.from !== undefined && this.#records.indexOf(record) >= this.#records.indexOf(this.from);',
        replace: 'return this.from !== undefined && this.#records.indexOf(record) < 0;',
      },
    ],
  },
  {
    name: 'the state before a revert goes before the revert is over',
    breaks: 'after a crash the revert cannot go on',
    unitTest: { file: 'engine/revert.test.ts', name: 'ends before the state before it goes' },
    edits: [
      {
        file: REVERT,
        find: '    await this.#flag(target, false);\n    live.putBack',
        replace:
          '    chain.keeping.from = undefined;\n    await dropUnwanted(this.#context, previous);\n    await this.#flag(target, false);\n    live.putBack',
      },
    ],
  },
  {
    name: 'a state before a revert that nobody wants is forgotten by a crash',
    breaks: 'it stays for ever',
    smallBlocks: true,
    history: ENDED,
    edits: [
      {
        file: REVERT,
        find: 'for (const record of [...this.#context.chain.records]) await dropUnwanted(this.#context, record);',
        replace: '',
      },
    ],
  },
  {
    name: 'blocks still to be put back do not count as changed',
    breaks: 'a block that differs is not reported',
    smallBlocks: true,
    edits: [
      {
        file: 'volume/stored-history.ts',
        find: 'const first = target === undefined ? from : Math.min(from, chain.indexOf(target));',
        replace: 'const first = target === undefined ? from : from;',
      },
    ],
  },
  {
    name: 'a revert is cancelled although its end may be durable',
    breaks: 'the next opening finds no revert, and nothing that was cancelled',
    unitTest: { file: 'engine/revert.test.ts', name: 'is cancelled for good also when its end' },
    edits: [
      {
        file: REVERT,
        find: 'if (underWay.isEndInDoubt) await this.#flag(target, true);',
        replace: '',
      },
    ],
  },
];

export const REVERTING_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'reverts', ...bug }));
