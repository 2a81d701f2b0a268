/** Bugs in the write buffer: what is acknowledged before it is in the volume. */
import type { PlantedBug } from './bug.js';

const BUFFER = 'copy-on-write/write-buffer.ts';
const READS = 'copy-on-write/buffered-reads.ts';
const ENTRY = 'copy-on-write/buffered-write.ts';
const HISTORY = 'volume/stored-history.ts';

export const BUFFERING_BUGS: readonly PlantedBug[] = [
  {
    name: 'a discard does not wait for the changes whose zeros it passes over',
    breaks: 'discarded data comes back after a flush and a power cut',
    history: { name: 'a range is made zero twice at once', layout: 'directory', orders: 4, statesMax: 8 },
    edits: [{ file: 'volume/changing.ts', find: 'await gate.whenLeft();', replace: '' }],
  },
  {
    name: 'a flush does not wait for the write buffer',
    breaks: 'flushed data is lost with the process',
    edits: [
      {
        file: BUFFER,
        find: 'await this.drained();\n    await this.#device.flush();',
        replace: 'await this.#device.flush();',
      },
    ],
  },
  {
    name: 'a buffered write is written out before its copy is committed',
    breaks: 'a snapshot loses the original',
    edits: [
      {
        file: BUFFER,
        find: 'if (copies === undefined) this.#ready(write);',
        replace: 'copies?.catch(() => undefined);\n    if (write.length > 0) this.#ready(write);',
      },
      { file: BUFFER, find: 'copies.then(', replace: 'copies?.then(' },
    ],
  },
  {
    name: 'a read misses the write buffer',
    breaks: 'an acknowledged write is not read',
    edits: [
      {
        file: READS,
        find: 'if (this.#index.isEmpty) return',
        replace: 'if (offset >= 0) return',
      },
    ],
  },
  {
    name: 'a read lays nothing over that was written out meanwhile',
    breaks: 'an acknowledged write is not read, for a moment',
    edits: [
      {
        file: READS,
        find: 'for (const write of held) write.layOver(offset, target);',
        replace: "for (const write of held) if (write.state !== 'over') write.layOver(offset, target);",
      },
    ],
  },
  {
    name: 'a read lays older bytes over newer ones',
    breaks: 'an acknowledged write is not read',
    edits: [
      {
        file: READS,
        find: 'for (const write of held) write.layOver(offset, target);',
        replace: 'for (const write of [...held].reverse()) write.layOver(offset, target);',
      },
    ],
  },
  {
    name: 'memory is used again while a reader holds it',
    breaks: 'a read returns bytes of another place',
    edits: [
      { file: READS, find: 'for (const write of held) write.holders++;', replace: '' },
      {
        file: BUFFER,
        find: 'giveBack(write.lent);',
        replace: 'write.lent.memory.fill(0xee);\n    giveBack(write.lent);',
      },
      { file: READS, find: 'for (const write of held) this.#release(write);', replace: '' },
    ],
  },
  {
    name: 'memory of what was written out is not given back',
    breaks: 'writes wait for ever',
    edits: [
      {
        file: BUFFER,
        find: 'if (write.isCounted) this.#room.release(pooledSize(write.length));',
        replace: '',
      },
    ],
  },
  {
    name: 'a write with nothing to copy overtakes older bytes in the buffer',
    breaks: 'the older write lands on the newer one',
    edits: [{ file: BUFFER, find: 'if (older.length === 0 && !this', replace: 'if (!this' }],
  },
  {
    name: 'overlapping writes of the buffer are written out in any order',
    breaks: 'an older write lands on a newer one',
    edits: [
      {
        file: BUFFER,
        find: "if (write.blockers > 0 || write.state !== 'kept'",
        replace: "if (write.state !== 'kept'",
      },
    ],
  },
  {
    name: 'a buffered write waits only for the last one that it overlaps',
    breaks: 'an older write lands on a newer one',
    about: 'buffer',
    edits: [
      {
        file: BUFFER,
        find: 'for (const other of older) {',
        replace: 'for (const other of older.slice(-1)) {',
      },
    ],
  },
  {
    name: 'a discard does not wait for older bytes in the buffer',
    breaks: 'the older write lands on discarded space',
    edits: [
      {
        file: BUFFER,
        find: 'this.#add(write, this.#index.overlapping(offset, offset + length));',
        replace: 'this.#add(write, []);',
      },
    ],
  },
  {
    name: 'bytes are put in place of some that are being written',
    breaks: 'the device is given bytes that change under it',
    edits: [{ file: ENTRY, find: '|| !isOpen ||', replace: '||' }],
  },
  {
    name: 'bytes are put in place of older ones under newer ones',
    breaks: 'a newer write is lost under an older one',
    about: 'buffer',
    edits: [
      {
        file: BUFFER,
        find: 'older.at(-1)?.absorb(offset, source, this.#epoch)',
        replace: 'older[0]?.absorb(offset, source, this.#epoch)',
      },
    ],
  },
  {
    name: 'bytes are put in place of some from before the moment of a snapshot',
    breaks: 'the snapshot has a write that is newer than it',
    about: 'buffer',
    edits: [{ file: ENTRY, find: '|| epoch !== this.epoch)', replace: ')' }],
  },
  {
    name: 'a snapshot is taken before the buffer is in the volume',
    breaks: 'an acknowledged write is missing in the snapshot',
    about: 'buffer',
    edits: [
      {
        file: 'snapshot/hold.ts',
        find: "if (writes !== undefined) await this.within('buffered writes were not written', writes.drained());",
        replace: '',
      },
      // Else there is seldom anything in it at the moment.
      {
        file: 'snapshot/hold.ts',
        find: 'writes === undefined ? device.flush() : writes.flush()',
        replace: 'device.flush()',
      },
    ],
  },
  {
    name: 'a write with nothing to copy slips past the moment of a snapshot',
    breaks: 'a snapshot has a write that is newer than one which it has not',
    edits: [
      {
        file: BUFFER,
        find: '&& !this.#isPlugged && !this.#copyOnWrite',
        replace: '&& !this.#copyOnWrite',
      },
      {
        file: 'copy-on-write/direct-writes.ts',
        find: 'const shift = this.#gate.enter();',
        replace:
          "const shift = this.#gate.enter();\n    if (typeof shift !== 'number') return shift.then((later) => this.#writeSlowly(offset, source, lent, later));",
      },
    ],
  },
  {
    name: 'the buffer passes on what is newer than the moment of a snapshot',
    breaks: 'a snapshot has a write that is newer than one which it has not',
    edits: [{ file: BUFFER, find: ' || write.epoch > this.#openEpoch) return;', replace: ') return;' }],
  },
  {
    name: 'a snapshot that could not be taken leaves the buffer plugged',
    breaks: 'writes wait for ever',
    edits: [
      { file: 'snapshot/hold.ts', find: 'writes?.unplug();', replace: 'if (wasHeld) writes?.unplug();' },
    ],
  },
  {
    name: 'a write-out that failed is forgotten',
    breaks: 'an acknowledged write is lost, and nobody hears of it',
    about: 'faults',
    edits: [
      {
        file: BUFFER,
        find: 'this.#gate.leave(write.shift);\n      this.#giveUp(write, error);',
        replace: 'this.#gate.leave(write.shift);\n      this.#end(write, undefined);',
      },
    ],
  },
  {
    name: 'a close does not wait for the write buffer',
    breaks: 'acknowledged writes are lost by a clean close',
    about: 'buffer',
    edits: [
      {
        file: HISTORY,
        find: 'await writes?.drained();\n      await late?.giveUpCopies();',
        replace: 'await late?.giveUpCopies();',
      },
    ],
  },
  {
    name: 'changes until now leave out what is in the write buffer',
    breaks: 'a block that changed is not reported',
    edits: [{ file: HISTORY, find: 'if (until === undefined) await writes?.drained();', replace: '' }],
  },
];
