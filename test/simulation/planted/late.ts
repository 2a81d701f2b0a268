/** Bugs about diff areas that are late: copies in memory, and what becomes of them. */
import type { PlantedBug } from './bug.js';

const LATE = 'snapshot/late-area.ts';
const WAITING = 'volume/late-areas.ts';
const ARRIVAL = 'snapshot/arrival.ts';

export const LATE_BUGS: readonly PlantedBug[] = [
  {
    name: 'late diff areas: nothing says that copies are in memory',
    breaks: 'after a crash a snapshot is shown that has lost blocks',
    about: 'late',
    edits: [
      {
        file: LATE,
        find: 'await this.control.setState(this.storeId, { set: SnapshotState.copiesInMemory });',
        replace: '',
      },
    ],
  },
  {
    name: 'late diff areas: that copies are in memory is said after the volume was written',
    breaks: 'after a crash a snapshot is shown that has lost blocks',
    about: 'late',
    edits: [
      {
        file: LATE,
        find: 'await this.control.setState(this.storeId, { set: SnapshotState.copiesInMemory });',
        replace:
          'void this.control.setState(this.storeId, { set: SnapshotState.copiesInMemory }).catch(() => undefined);',
      },
    ],
  },
  {
    name: 'late diff areas: what is said of memory is not taken back when they have arrived',
    breaks: 'the next opening gives whole snapshots up',
    about: 'late',
    edits: [{ file: LATE, find: 'if (!this.#mayBeNoted) return;', replace: 'if (this.#mayBeNoted) return;' }],
  },
  {
    name: 'late diff areas: what is said of memory is taken back before the copies are moved',
    breaks: 'a crash in between leaves a snapshot that has lost blocks',
    about: 'late',
    edits: [
      {
        file: WAITING,
        find: 'let copies = await this.#moveCopies(loaded);',
        replace:
          'for (const { memory } of loaded) await memory.forgetCopies();\n    let copies = await this.#moveCopies(loaded);',
      },
    ],
  },
  {
    name: 'late diff areas take over while writes go on',
    breaks: 'copies on their way into memory are lost',
    about: 'late',
    edits: [
      {
        file: WAITING,
        find: 'if (target === undefined) await takeOver();',
        replace: 'if (loaded.length > 0) await takeOver();',
      },
    ],
  },
  {
    name: 'late diff areas: copies that came while others were moved stay in memory',
    breaks: 'a snapshot reads what was written later',
    about: 'late',
    edits: [{ file: WAITING, find: 'copies += await this.#moveCopies(loaded);', replace: '' }],
  },
  {
    name: 'late diff areas: a copy from memory replaces an older one',
    breaks: 'a snapshot shows what was written after it was taken',
    about: 'late',
    edits: [{ file: ARRIVAL, find: '.filter((block) => to.needs(block))', replace: '' }],
  },
  {
    name: 'late diff areas: moved copies are not flushed',
    breaks: 'a power cut takes them',
    about: 'late',
    edits: [
      {
        file: ARRIVAL,
        find: 'await to.writeEntries();\n  await to.flush();',
        replace: 'await to.writeEntries();',
      },
    ],
  },
  {
    name: 'late diff areas: copies are in memory that a held snapshot needs',
    breaks: 'a crash takes a snapshot that nothing may delete',
    about: 'late',
    edits: [{ file: LATE, find: 'if (held === undefined) return undefined;', replace: 'return undefined;' }],
  },
  {
    name: 'late diff areas are waited for without end',
    breaks: 'there is no time limit',
    about: 'late',
    edits: [
      { file: WAITING, find: 'if (!isOver && this.#now >= this.#deadline)', replace: 'if (this.#now < 0)' },
    ],
  },
  {
    name: 'late diff areas count a second time when they arrive',
    breaks: 'the store counts space that nobody has',
    about: 'late',
    edits: [
      {
        file: 'store/directory-store.ts',
        find: 'this.budget.count(list.runs.size - counted);',
        replace: 'this.budget.count(list.runs.size);',
      },
    ],
  },
  {
    name: 'late diff areas that are given up count on',
    breaks: 'space leaks',
    about: 'late',
    edits: [{ file: LATE, find: 'this.#budget.giveBack(this.#bytes);', replace: '' }],
  },
  {
    name: 'late diff areas: copies in memory let a newer snapshot skip blocks',
    breaks: 'a snapshot skips blocks of which the older one, once arrived, has no copy',
    unitTest: { file: 'engine/late-areas.test.ts', name: 'lets a new snapshot skip nothing' },
    edits: [
      {
        file: 'snapshot/unused-space.ts',
        find: 'const found = older.hasStandIn ? [] : foundIn(older.area);',
        replace: 'const found = foundIn(older.area);',
      },
    ],
  },
];
