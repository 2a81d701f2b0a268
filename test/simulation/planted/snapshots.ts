/** Bugs in taking, reading and deleting snapshots, and in the control file that says which there are. */
import type { PlantedBug } from './bug.js';

const CREATE = 'snapshot/create.ts';
const HOLD = 'snapshot/hold.ts';
const READER = 'snapshot/reader.ts';
const CONTROL = 'store/control-file.ts';
const GATE = 'copy-on-write/write-gate.ts';

export const SNAPSHOT_BUGS: readonly PlantedBug[] = [
  {
    name: 'the hold lets a write slip while the snapshot is committed',
    breaks: 'a write is neither before nor after the moment of the snapshot',
    edits: [{ file: GATE, find: 'if (!this.#held) {', replace: 'if (!this.#held || this.#inside === 0) {' }],
  },
  {
    name: 'the snapshot is committed before the writes in flight have ended',
    breaks: 'a snapshot changes after it was taken',
    edits: [
      {
        file: HOLD,
        find: 'await this.#told(gate.hold(this.#deadline - environment.clock.monotonic()));',
        replace: 'void gate.hold(limitMs).catch(() => undefined);',
      },
    ],
  },
  {
    name: 'held writes go on before the snapshot is committed',
    breaks: 'blocks are overwritten that the new snapshot has no copy of',
    edits: [
      {
        file: CREATE,
        find: 'this.#publishing = this.#publishNext(state);',
        replace: 'this.#publishing = this.#publishNext(state);\n    this.release();',
      },
    ],
  },
  {
    name: 'the volume is not flushed while writes are held',
    breaks: 'a power cut takes a snapshot back to before its moment',
    edits: [
      {
        file: HOLD,
        find: "const flushed = this.within('the volume was not flushed', device.flush());",
        replace: 'const flushed = device.size < 0;',
      },
    ],
  },
  {
    name: 'a hold that took too long leaves writes held',
    breaks: 'writes wait for ever',
    edits: [{ file: GATE, find: 'this.release();\n      throw error;', replace: 'throw error;' }],
  },
  {
    name: 'a new diff area is not flushed before the commit',
    breaks: 'a snapshot has no table after a power cut',
    edits: [
      {
        file: 'diff-area/create.ts',
        find: 'new Uint8Array(BLOCK_SIZE));\n  await file.establish();',
        replace: 'new Uint8Array(BLOCK_SIZE));',
      },
    ],
  },
  {
    name: 'a commit that failed is not withdrawn',
    breaks: 'a snapshot that was refused is there after a reopening, without its file',
    about: 'faults',
    edits: [
      { file: CREATE, find: 'if (this.#publishing === undefined) return true;', replace: 'return true;' },
    ],
  },
  {
    name: 'copies go to the older snapshot still',
    breaks: 'the new snapshot has no copies',
    edits: [{ file: CREATE, find: 'copyOnWrite.setTarget(area);', replace: '' }],
  },
  {
    name: 'a sector of the control file is not flushed',
    breaks: 'a snapshot that was taken, or a deletion, is gone after a power cut',
    edits: [
      {
        file: CONTROL,
        find: 'sector, sector + SECTOR_SIZE));\n      await this.#device.flush();',
        replace: 'sector, sector + SECTOR_SIZE));',
      },
    ],
  },
  {
    name: 'the diff-area item lies in another sector than its snapshot item',
    breaks: 'a crash leaves half a snapshot',
    edits: [
      {
        file: 'format/control-block.ts',
        find: 'if (sectorOfItem(i) !== sectorOfItem(i + 1)) continue;',
        replace: '',
      },
      {
        file: CONTROL,
        find: 'assert(sector === sectorOfItem(item + 1), () =>',
        replace:
          'const other = sectorOfItem(item + 1);\n    if (other !== sector) await this.#device.write(block.offset + other, block.image.slice(other, other + SECTOR_SIZE));\n    assert(sector <= other, () =>',
      },
    ],
  },
  {
    name: 'the checksum over the two items of a snapshot is not verified',
    breaks: 'rot in the order of snapshots makes them read each other',
    unitTest: { file: 'engine/found-defects.test.ts', name: 'a control item that rots never changes' },
    edits: [
      {
        file: CONTROL,
        find: 'if (!isPairSound(place.block.image, place.item, this.#start.extension.storeId)) {',
        replace: 'if (false) {',
      },
    ],
  },
  {
    name: 'the control file is not flushed at opening',
    breaks: 'a snapshot found after a killed process is gone after a power cut',
    edits: [
      {
        file: CONTROL,
        find: 'encodeStartBlock(changed));\n    await this.#device.flush();',
        replace: 'encodeStartBlock(changed));',
      },
    ],
  },
  {
    name: 'the control blocks are not flushed before the start block counts',
    breaks: 'a power cut while a store is made leaves one that does not open',
    about: 'making',
    edits: [
      {
        file: CONTROL,
        find: 'await device.flush(); // before the start block makes them count',
        replace: '',
      },
    ],
  },
  {
    name: 'opening does not record that the volume is in use',
    breaks: 'a crash passes for a clean close',
    edits: [{ file: 'volume/open.ts', find: 'await store.control.markOpen(size);', replace: '' }],
  },
  {
    name: 'a close is recorded before the volume is flushed',
    breaks: 'a power cut while closing makes the volume seem changed by others',
    history: { name: 'a close after work', layout: 'directory', statesMax: 16 },
    edits: [
      {
        file: 'volume/stored-history.ts',
        find: 'await device.flush();\n    // Where giving back',
        replace: '// Where giving back',
      },
      {
        file: 'volume/stored-history.ts',
        find: 'await store.control.markClosed({ volumeSize: device.size, modifiedAt });',
        replace:
          'await store.control.markClosed({ volumeSize: device.size, modifiedAt });\n    await device.flush();',
      },
    ],
  },
  {
    name: 'a close does not flush the volume',
    breaks: 'writes before a clean close are lost in a power cut',
    edits: [
      {
        file: 'volume/stored-history.ts',
        find: 'await device.flush();\n    // Where giving back',
        replace: '// Where giving back',
      },
    ],
  },
  {
    name: 'a reader does not look again after reading the volume',
    breaks: 'a snapshot shows what was written while it was read',
    edits: [
      {
        file: READER,
        find: "volume.read(start, part).then(() => this.#start(start, end, 'copies'))",
        replace: 'volume.read(start, part)',
      },
    ],
  },
  {
    name: 'a reader overlooks a snapshot that was taken while it read the volume',
    breaks: 'a snapshot shows what was written while it was read',
    about: 'deletion',
    edits: [
      {
        file: READER,
        find: "this.#add(volume.read(start, part).then(() => this.#start(start, end, 'copies')));",
        replace: `const first = blockOf(start);
    const before = this.#areas();
    const look = () => find(before, first, blockOf(end - 1) + 1 - first);
    this.#add(volume.read(start, part).then(() => this.#startRuns(look(), first, start, end, 'copies')));`,
      },
    ],
  },
  {
    name: 'a read in the middle of a block returns its beginning',
    breaks: 'a snapshot reads data of another place',
    edits: [
      {
        file: READER,
        find: 'const skip = start - offsetOfBlock(blockOf(start));',
        replace: 'const skip = 0;',
      },
    ],
  },
  {
    name: 'a reader looks at the newest diff area first',
    breaks: 'a snapshot shows a later copy of a block',
    edits: [
      {
        file: READER,
        find: 'for (let i = 0; i < areas.length && inVolume > 0; i++) {',
        replace: 'for (let i = areas.length - 1; i >= 0 && inVolume > 0; i--) {',
      },
    ],
  },
  {
    name: 'blocks of several diff areas are read in one request',
    breaks: 'a snapshot reads data of another place',
    edits: [
      { file: READER, find: 'while (to < limit && owners[to] === owner) {', replace: 'while (to < limit) {' },
    ],
  },
  {
    name: 'a reader of a snapshot deleted meanwhile gets what it read',
    breaks: 'a read returns data for which no copies were made any more',
    unitTest: { file: 'engine/copy-on-write.test.ts', name: 'that is deleted meanwhile is SNAPSHOT_DELETED' },
    edits: [
      {
        file: 'snapshot/record.ts',
        find: 'const result = await this.#readers.run(read);\n    this.checkExists();',
        replace: 'const result = await this.#readers.run(read);',
      },
    ],
  },
  {
    name: 'the start sector of an in-volume store is written through',
    breaks: 'a write to the volume destroys the store',
    edits: [
      {
        file: 'store/start-sector-device.ts',
        find: 'const isWithout = offset >= END || offset + length <= START;',
        replace: 'const isWithout = true;',
      },
    ],
  },
  {
    name: 'the sector under the start block is not kept',
    breaks: 'the volume loses a sector when the store is made',
    edits: [
      {
        file: 'store/in-volume-store.ts',
        find: 'await device.write(sectorAfter(controlOffset), start);',
        replace: '',
      },
    ],
  },
  {
    name: 'changed blocks leave out those of the snapshot itself',
    breaks: 'a block that changed is not reported',
    edits: [
      {
        file: 'volume/stored-history.ts',
        find: 'chain.records.slice(Math.max(0, first), Math.max(0, end))',
        replace: 'chain.records.slice(Math.max(0, first + 1), Math.max(0, end))',
      },
    ],
  },
];
