/** Bugs in making the volume longer. */
import type { PlantedBug } from './bug.js';

const GROWING = 'volume/growing.ts';

const BUGS: readonly PlantedBug[] = [
  {
    name: 'a growth is not announced',
    breaks: 'a volume whose growth was cut off is not known any more',
    edits: [{ file: GROWING, find: 'await store.control.announceGrowth(size);', replace: '' }],
  },
  {
    name: 'a growth is recorded before it is durable',
    breaks: 'a volume is shorter after a power cut than its record says',
    edits: [
      {
        file: GROWING,
        find: 'await device.resize(size);\n  await device.flush();',
        replace: 'await device.resize(size);',
      },
    ],
  },
  {
    name: 'a growth that a killed process left is on record before it is durable',
    breaks: 'a volume is shorter after a power cut than its record says',
    edits: [
      {
        file: 'volume/open.ts',
        find: 'if (size !== store.control.start.extension.protectedSize) await store.volume.flush();',
        replace: '',
      },
    ],
  },
  {
    name: 'what a growth that failed has left is not recorded before the next one',
    breaks: 'a volume has a third size after a crash, and is not known any more',
    edits: [
      {
        file: GROWING,
        find: 'if (device.size !== store.control.start.extension.protectedSize) {',
        replace: 'if (device.size < 0) {',
      },
    ],
  },
  {
    name: 'a close does not record what a growth that failed has left',
    breaks: 'a volume is not known any more after a close',
    edits: [
      {
        file: 'store/control-file.ts',
        find: '{ clean, protectedSize: clean.volumeSize, growingTo: 0 }',
        replace: '{ clean }',
      },
    ],
  },
  {
    name: 'the volume grows while a snapshot is taken',
    breaks: 'a snapshot is of another size than what is kept for it',
    edits: [
      {
        file: 'volume/volume.ts',
        find: 'await this.whileCreating(({ engine }) => growVolume(engine, size));',
        replace: 'await this.#runWriting(({ engine }) => growVolume(engine, size));',
      },
    ],
  },
  {
    name: 'the volume grows while it is put back',
    breaks: 'what a revert goes to and what it came from are of two sizes',
    edits: [
      {
        file: GROWING,
        find: 'if (chain.keeping.from !== undefined) {',
        replace: 'if (chain.keeping.from === null) {',
      },
    ],
  },
  {
    name: 'a volume that has grown is put back to what was smaller',
    breaks: 'what it has grown by stays as it is',
    edits: [
      {
        file: 'snapshot/revert-state.ts',
        find: 'if (item.volumeSize !== volumeSize) {',
        replace: 'if (item.volumeSize > volumeSize) {',
      },
    ],
  },
  {
    name: 'changed blocks leave out what the volume has grown by',
    breaks: 'an incremental backup is wrong',
    edits: [
      {
        file: 'volume/changed-blocks.ts',
        find: 'size > sizeBefore ? Math.floor(sizeBefore / BLOCK_SIZE) : blocksIn(size);',
        replace: 'size < sizeBefore ? Math.floor(sizeBefore / BLOCK_SIZE) : blocksIn(size);',
      },
    ],
  },
  {
    name: 'what the volume has grown by is copied for a snapshot that is smaller',
    breaks: 'its table has entries behind its end',
    edits: [
      {
        file: 'copy-on-write/room-aside.ts',
        find: 'Math.min(blockOf(offset + length - 1) + 1, table.blockCount);',
        replace: 'Math.max(blockOf(offset + length - 1) + 1, 0 * table.blockCount);',
      },
    ],
  },
];

export const GROWING_BUGS: readonly PlantedBug[] = BUGS.map((bug) => ({ about: 'growth', ...bug }));
