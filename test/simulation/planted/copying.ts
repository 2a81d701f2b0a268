/** Bugs on the way of a write: from the filter to the durable copy to the volume. */
import type { PlantedBug } from './bug.js';

const COPY_ON_WRITE = 'copy-on-write/copy-on-write.ts';
const COMMITS = 'copy-on-write/commits.ts';
const AREA = 'diff-area/diff-area.ts';
const VOLUME = 'volume/volume.ts';

export const COPYING_BUGS: readonly PlantedBug[] = [
  {
    name: 'the diff area is not flushed before the volume is written',
    breaks: 'a snapshot loses originals in a power cut',
    edits: [
      {
        file: COMMITS,
        find: 'await area.flush();\n      for (const copied of group) area.publish(copied);',
        replace: 'for (const copied of group) area.publish(copied);',
      },
    ],
  },
  {
    name: 'copies are published before they are flushed',
    breaks: 'a second write to the block overtakes the flush',
    edits: [
      {
        file: COMMITS,
        find: 'await area.writeEntries();\n      await area.flush();\n      for (const copied of group) area.publish(copied);',
        replace:
          'await area.writeEntries();\n      for (const copied of group) area.publish(copied);\n      await area.flush();',
      },
    ],
  },
  {
    name: 'a write does not wait for a copy in flight',
    breaks: 'the second writer of a block overwrites it before its copy is durable',
    edits: [
      {
        file: COPY_ON_WRITE,
        find: 'const batch = this.#inFlight.get(block) ??',
        replace: 'if (this.#inFlight.has(block)) continue;\n      const batch =',
      },
    ],
  },
  {
    name: 'a block in flight is copied a second time',
    breaks: 'the later copy holds what a write has put there meanwhile',
    edits: [
      {
        file: COPY_ON_WRITE,
        find: 'const batch = this.#inFlight.get(block) ?? this.#enqueue(area, block);',
        replace: 'const batch = this.#enqueue(area, block);',
      },
    ],
  },
  {
    name: 'a write does not wait for its copy',
    breaks: 'the copy is read after the block was overwritten',
    edits: [
      {
        file: 'volume/changing.ts',
        find: 'return copies === undefined ? write() : copies.then(write, fail);',
        replace: 'copies?.catch(() => undefined);\n  return write();',
      },
    ],
  },
  {
    name: 'a write goes on once its copy is written, before the commit',
    breaks: 'no entry leads to the copy after a power cut',
    edits: [
      {
        file: COPY_ON_WRITE,
        find: 'this.figures.batches++;',
        replace: 'this.figures.batches++;\n    copied.batch.finish();',
      },
    ],
  },
  {
    name: 'the data of a copy is not waited for',
    breaks: 'the commit covers copies that are not written yet',
    edits: [
      {
        file: COPY_ON_WRITE,
        find: 'await area.writeData(reserved, stored);',
        replace: 'void area.writeData(reserved, stored).catch(() => undefined);',
      },
    ],
  },
  {
    name: 'a block that begins with zeros counts as zeros',
    breaks: 'a snapshot reads zeros in place of data',
    edits: [
      {
        file: 'copy-on-write/originals.ts',
        find: 'ZEROS.equals(data);',
        replace: 'ZEROS.subarray(0, 512).equals(data.subarray(0, 512));',
      },
    ],
  },
  {
    name: 'the short last block of a volume is not read',
    breaks: 'a snapshot reads zeros at the end of the volume',
    edits: [
      {
        file: 'copy-on-write/originals.ts',
        find: 'volume.size - offset);',
        replace: 'Math.floor((volume.size - offset) / BLOCK_SIZE) * BLOCK_SIZE);',
      },
    ],
  },
  {
    name: 'the last block that a write touches only in part is not copied',
    breaks: 'a snapshot reads what was written later',
    edits: [
      {
        file: 'copy-on-write/room-aside.ts',
        find: 'Math.min(blockOf(offset + length - 1) + 1, table',
        replace: 'Math.min(Math.max(blockOf(offset + length), blockOf(offset) + 1), table',
      },
    ],
  },
  {
    name: 'a discard is passed on without copies',
    breaks: 'a snapshot reads zeros where data was discarded later',
    edits: [
      {
        file: VOLUME,
        find: 'await this.#clear(\n      offset,\n      length,\n      (device, at, part) => device.discard?.(at, part) ?? zero(device, at, part),\n    );',
        replace: 'await this.#runWriting(async ({ engine }) => zero(engine.device, offset, length));',
      },
    ],
  },
  {
    name: 'a write of zeros is passed on without copies',
    breaks: 'a snapshot reads zeros where they were written later',
    edits: [
      {
        file: VOLUME,
        find: 'await this.#clear(offset, length, zero);',
        replace: 'await this.#runWriting(async ({ engine }) => zero(engine.device, offset, length));',
      },
    ],
  },
  {
    name: 'a failed copy is ignored',
    breaks: 'a snapshot stays although it has lost a block',
    about: 'faults',
    edits: [
      {
        file: 'snapshot/space.ts',
        find: "if (!(await this.#overflow.give(newest, 'copy-failed', error))) throw error;\n",
        replace: '',
      },
    ],
  },
  {
    name: 'entries that could not be written are not written again',
    breaks: 'a retry commits copies without entries',
    about: 'faults',
    edits: [
      {
        file: 'diff-area/table-writer.ts',
        find: 'const end = roundUp(block.to, SECTOR_SIZE);',
        replace: 'const end = roundUp(block.to, SECTOR_SIZE);\n    Object.assign(block, CLEAN);',
      },
    ],
  },
  {
    name: 'a failed flush of the volume is reported as success',
    breaks: 'flushed data is lost in a power cut',
    about: 'faults',
    edits: [
      {
        file: VOLUME,
        find: 'await (engine?.writes ?? engine?.live)?.flush();',
        replace: 'await (engine?.writes ?? engine?.live)?.flush().catch(() => undefined);',
      },
    ],
  },
  {
    name: 'a flush does nothing',
    breaks: 'flushed data is lost in a power cut',
    edits: [{ file: VOLUME, find: 'await (engine?.writes ?? engine?.live)?.flush();', replace: '' }],
  },
  {
    name: 'memory of finished copies is not given back',
    breaks: 'writes wait for ever',
    edits: [{ file: COPY_ON_WRITE, find: 'this.#memory.release(batch.bytes);', replace: '' }],
  },
  {
    name: 'a slot is handed out twice',
    breaks: 'a copy is overwritten by another',
    edits: [
      {
        file: AREA,
        find: 'return this.#slots.take(slots);',
        replace:
          'const taken = this.#slots.take(slots);\n    if (taken !== undefined && taken.length > 2) this.#slots.putBack(taken.slice(-1));\n    return taken;',
      },
    ],
  },
  {
    name: 'slots of a failed batch are not given back',
    breaks: 'space is promised for ever to entries that never come',
    unitTest: { file: 'engine/copy-on-write.test.ts', name: 'a copy that fails once is repeated' },
    edits: [{ file: COPY_ON_WRITE, find: 'area.cancel(reserved, blocks.length, blocks);', replace: '' }],
  },
];
