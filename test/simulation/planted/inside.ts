/** Bugs of a store in runs of a file inside the volume. */
import type { PlantedBug } from './bug.js';

const DEVICE = 'store/start-sector-device.ts';
const LEAVING = 'store/leaving.ts';
const BLOCKS = 'snapshot/protected-blocks.ts';

/** A crash must come between two writes of one moment, and lose one of them. */
const history = {
  name: 'a store inside the volume gives way to a write over copies',
  layout: 'in-volume',
  statesMax: 64,
} as const;

const BUGS: readonly PlantedBug[] = [
  {
    name: 'what a store inside the volume holds is shown',
    breaks: 'blocks of the volume change while nobody writes them',
    edits: [{ file: DEVICE, find: 'if (isStore) part.fill(0);\n      else await', replace: 'await' }],
  },
  {
    name: 'zeros are not written where a store inside the volume lies',
    breaks: 'a revert does not end',
    edits: [{ file: DEVICE, find: 'else if (!isZeros(part)) throw', replace: 'else throw' }],
  },
  {
    name: 'a copy within the volume goes over the store',
    breaks: 'half of what is copied is written before it is refused',
    edits: [
      {
        file: 'volume/copy-range.ts',
        find: 'await engine.protectedBlocks?.admit(range.to, range.length);',
        replace: '',
      },
    ],
  },
  {
    name: 'a snapshot is written where the store lies',
    breaks: 'a revert to it does not end',
    edits: [
      {
        file: 'volume/stored-snapshot.ts',
        find: 'this.#engine.protectedBlocks?.checkSnapshotWrite(offset, source);',
        replace: '',
      },
    ],
  },
  {
    name: 'what a store cannot do without is given up',
    breaks: 'there is no store any more',
    edits: [{ file: BLOCKS, find: "if (met === 'needed') throw", replace: 'if (met === null) throw' }],
  },
  {
    name: 'a store gives way with its snapshots',
    breaks: 'snapshots have copies where the volume was written',
    edits: [
      {
        file: BLOCKS,
        find: 'for (let last = chain.newest; last !== undefined; last = chain.newest)',
        replace: 'for (let last = chain.newest; last === null; last = chain.newest)',
      },
    ],
  },
  {
    name: 'a store gives way with its snapshots through one that is gone already',
    breaks: 'a snapshot has copies where the volume is written, or the write is refused',
    unitTest: { file: 'engine/protected-blocks.test.ts', name: 'a store gives way at any moment of merging' },
    edits: [
      {
        file: BLOCKS,
        find: 'for (let last = chain.newest; last !== undefined; last = chain.newest)',
        replace: 'const last = chain.newest;\n    if (last !== undefined)',
      },
    ],
  },
  {
    name: 'a store gives way although writes are refused',
    breaks: 'snapshots go for nothing, and the refusal is another',
    unitTest: {
      file: 'engine/protected-blocks.test.ts',
      name: 'nothing is given up while it cannot be told',
    },
    edits: [
      { file: BLOCKS, find: 'if (gate.failure !== undefined) throw gate.failure;', replace: 'void gate;' },
    ],
  },
  {
    name: 'blocks of a store are left while copies are read there',
    breaks: 'a diff area still lies where the volume was written',
    edits: [{ file: BLOCKS, find: 'await chain.freed();\n    await store', replace: 'await store' }],
  },
  {
    name: 'blocks of a store that are left keep what was copied there',
    breaks: 'the volume shows what it held before',
    edits: [
      {
        file: LEAVING,
        find: 'await writeZeros((at, zeros) => device.write(at, zeros), from * BLOCK_SIZE, count * BLOCK_SIZE);',
        replace: 'void writeZeros;',
      },
    ],
  },
  {
    name: 'blocks of a store are left before they are zero for good',
    breaks: 'the volume shows what it held before, after a power cut',
    history,
    edits: [
      {
        file: LEAVING,
        find: 'await device.flush(); // before the list',
        replace: '// before the list',
      },
    ],
  },
  {
    name: 'blocks that a store has left are handed out again',
    breaks: 'copies overwrite the volume',
    edits: [
      {
        file: LEAVING,
        find: 'removeAll(free, fresh);',
        replace: '',
      },
    ],
  },
  {
    name: 'blocks whose leaving has failed are not left again',
    breaks: 'the volume cannot be written there until it is opened again',
    unitTest: {
      file: 'engine/protected-blocks.test.ts',
      name: 'a device that fails at any moment of giving up',
    },
    edits: [{ file: LEAVING, find: 'new Extents([...free, ...this.#begun])', replace: 'new Extents(free)' }],
  },
  {
    name: 'the two places of the list of a store are written together',
    breaks: 'a power cut leaves no list',
    history,
    edits: [
      {
        file: 'store/reserve-list.ts',
        find: 'await device.write(offset, encodeLocationBlock(header, locations));\n  await device.flush();',
        replace: 'await device.write(offset, encodeLocationBlock(header, locations));',
      },
      {
        file: 'store/reserve-list.ts',
        find: 'await writePlace(device, at + place * BLOCK_SIZE, epoch, blocks);',
        replace: 'await writePlace(device, at + place * BLOCK_SIZE, epoch, blocks);\n  await device.flush();',
      },
    ],
  },
  {
    name: 'an old list of a store stays beside the one in force',
    breaks: 'where the next one is torn the old one counts again, and what was written since is lost',
    unitTest: {
      file: 'engine/reserve-list.test.ts',
      name: 'an older list that a crash has left never counts again',
    },
    edits: [
      {
        file: 'store/reserve-list.ts',
        find: 'inForce !== undefined && place >= 0; place--)',
        replace: 'inForce !== undefined && place >= RESERVE_LIST_BLOCKS; place--)',
      },
    ],
  },
];

export const INSIDE_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'inside', ...bug }));
