/**
 * Every crash of a short history: after each write and flush of the device, with each unflushed write not there, there, or there in part,
 * in every combination. The history crosses the end of a table block, where a new one is written and linked.
 *
 * And of one in which a store of volsnap takes the shadow copies over: with all unflushed writes there, none, or all but one.
 */
import { expect, test } from 'vitest';
import { InVolumeStore, MemoryDevice, type Snapshot, Volume } from '../../../src/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import { buildWindowsImage, copy, move, overlay } from '../../interop/support/windows-image.js';

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Tells what is done to it, in order. */
class RecordingDevice extends MemoryDevice {
  readonly log: (Write | 'flush')[] = [];

  override async write(offset: number, source: Uint8Array): Promise<void> {
    this.log.push({ offset, bytes: new Uint8Array(source) });
    await super.write(offset, source);
  }

  override async flush(): Promise<void> {
    this.log.push('flush');
    await super.flush();
  }
}

/** Which sectors of a write are kept: none, all, the first, all others, the last, all others. */
const PARTS: readonly ((sector: number, count: number) => boolean)[] = [
  () => false,
  () => true,
  (sector) => sector === 0,
  (sector) => sector > 0,
  (sector, count) => sector === count - 1,
  (sector, count) => sector < count - 1,
];

/** Every combination, each once. */
function* statesOf(durable: Uint8Array, pending: readonly Write[]): Generator<Uint8Array> {
  const [first, ...others] = pending;
  if (first === undefined) {
    yield durable;
    return;
  }
  const sectors = [...Array(Math.ceil(first.bytes.byteLength / SECTOR_SIZE)).keys()];
  const seen = new Set<string>();
  for (const isKept of PARTS) {
    const kept = sectors.filter((sector) => isKept(sector, sectors.length));
    if (seen.has(kept.join())) continue;
    seen.add(kept.join());
    const bytes = durable.slice();
    for (const sector of kept) {
      const [from, to] = [sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE];
      bytes.set(first.bytes.subarray(from, to), first.offset + from);
    }
    yield* statesOf(bytes, others);
  }
}

/** Blocks that the history is about; the stores lie behind them. */
const SUBJECTS = 12;
const T = 130_305_261_097_363_787n;

const imageWith = (placesLeft: number) =>
  buildWindowsImage({
    size: 52 * BLOCK_SIZE,
    metadataFrom: 16,
    snapshots: [
      { number: 1, createdAt: T, tables: [[copy(2, 12), move(4, 10), overlay(9, 13, 0xff)]], free: [0] },
      {
        number: 2,
        createdAt: T + 1n,
        tables: [
          [copy(1, 14), move(3, 9), ...Array.from({ length: 506 - placesLeft }, () => copy(1, 14, 0x4))],
        ],
        unused: [5, 9],
        free: [4, 8],
      },
    ],
  });

async function shadowCopies(bytes: Uint8Array): Promise<Uint8Array[]> {
  const store = await ForeignStore.open(new MemoryDevice(bytes));
  return Promise.all(store.snapshots.map((snapshot) => snapshot.read(0, SUBJECTS * BLOCK_SIZE)));
}

test.each([0, 2])(
  'each leaves every shadow copy as it was, with %d places left in the table block',
  async (placesLeft) => {
    const { bytes } = imageWith(placesLeft);
    const expected = await shadowCopies(bytes);
    // Block 5 is unused in the newest, and of the older nothing says so.
    const device = new RecordingDevice(bytes.slice());
    const volume = await Volume.open(device, { shadowCopies: 'keep' });
    const content = new Uint8Array(2 * BLOCK_SIZE).fill(0xee);
    await volume.write(9 * BLOCK_SIZE + 512, content.subarray(0, 1024));
    await volume.write(10 * BLOCK_SIZE, content.subarray(0, BLOCK_SIZE));
    await volume.write(11 * BLOCK_SIZE, content.subarray(0, 512));
    await volume.write(BLOCK_SIZE, content);
    await volume.write(5 * BLOCK_SIZE, content.subarray(0, 512));
    await volume.close();

    const durable = bytes.slice();
    let pending: Write[] = [];
    let states = 0;
    for (const operation of [...device.log, 'end' as const]) {
      for (const state of statesOf(durable, pending)) {
        const found = await shadowCopies(state);
        for (const [age, content] of found.entries()) {
          // Block 5 of the newest is unused: zeros until it has a copy for the sake of the older one.
          if (age === 1) content.fill(0, 5 * BLOCK_SIZE, 6 * BLOCK_SIZE);
          expect(Buffer.compare(content, expected[age] ?? new Uint8Array()), `state ${states}`).toBe(0);
        }
        states++;
      }
      if (operation === 'flush') {
        for (const { offset, bytes: written } of pending) durable.set(written, offset);
        pending = [];
      } else if (operation !== 'end') pending.push(operation);
    }
    expect(states).toBeGreaterThan(100);
  },
);

/** All pending writes, none, and all but each; of one that is alone every part. */
function* fewStatesOf(durable: Uint8Array, pending: readonly Write[]): Generator<Uint8Array> {
  const kept = (some: readonly Write[]) => {
    const bytes = durable.slice();
    for (const write of some) bytes.set(write.bytes, write.offset);
    return bytes;
  };
  if (pending.length <= 1) {
    yield* statesOf(durable, pending);
    return;
  }
  yield durable;
  yield kept(pending);
  for (const write of pending) yield kept(pending.filter((each) => each !== write));
}

/** Oldest first, whoever made them. */
async function allSnapshots(bytes: Uint8Array): Promise<{ label: string; content: Uint8Array }[]> {
  const isOwn = bytes[0x1e00 + 96] !== 0;
  if (!isOwn) return (await shadowCopies(bytes)).map((content) => ({ label: '', content }));
  await using volume = await Volume.open(new MemoryDevice(bytes), { readOnly: true });
  const read = async (snapshot: Snapshot) => ({
    label: snapshot.label ?? '',
    content: await snapshot.read(0, SUBJECTS * BLOCK_SIZE),
  });
  return await Promise.all(volume.snapshots.map(read));
}

test('each leaves every shadow copy as it was while a store of volsnap takes them over, and afterwards', async () => {
  const { bytes } = imageWith(20);
  const room = 90 * BLOCK_SIZE;
  const device = new RecordingDevice(Uint8Array.from([...bytes, ...new Uint8Array(room)]));
  const before = device.bytes.slice();
  const expected = await shadowCopies(bytes);
  const content = new Uint8Array(2 * BLOCK_SIZE).fill(0xee);
  const store = new InVolumeStore({ protectedSize: bytes.byteLength });
  await Volume.initialize(device, { store, shadowCopies: 'keep' });
  const growth = { initial: 9 * BLOCK_SIZE, maximum: 9 * BLOCK_SIZE };
  const volume = await Volume.open(device, { growth });
  const steps = [device.log.length];
  const step = () => steps.push(device.log.length);
  await volume.write(BLOCK_SIZE, content);
  const first = await volume.createSnapshot({ label: 'first' });
  step();
  await volume.write(9 * BLOCK_SIZE + 512, content.subarray(0, 1024));
  await first.delete({ wait: true });
  await volume.write(10 * BLOCK_SIZE, content.subarray(0, BLOCK_SIZE));
  step();
  await volume.deleteOldest();
  await volume.close();

  const original = bytes.subarray(0, SUBJECTS * BLOCK_SIZE);
  const durable = before;
  let pending: Write[] = [];
  let states = 0;
  for (const [index, operation] of [...device.log, 'end' as const].entries()) {
    for (const state of fewStatesOf(durable, pending)) {
      const found = await allSnapshots(state);
      const copies = found.filter(({ label }) => label === '');
      const where = `state ${states}, operation ${index} of ${device.log.length}`;
      if (index <= (steps[2] ?? 0)) expect(copies.length, where).toBe(2);
      else expect(copies.length, where).toBeGreaterThan(0);
      for (const [place, { content: shown }] of copies.entries()) {
        const age = place + 2 - copies.length;
        // Block 5 of the newer is unused; the older reads it through that one.
        if (age === 1) for (const block of [5]) shown.fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
        expect(Buffer.compare(shown, expected[age] ?? new Uint8Array()), `${where}, ${age}`).toBe(0);
      }
      const base = found.find(({ label }) => label === 'as volsnap found it');
      if (index > (steps[0] ?? 0)) expect(base, where).toBeDefined();
      if (base !== undefined) expect(Buffer.compare(base.content, original), where).toBe(0);
      states++;
    }
    if (operation === 'flush') {
      for (const { offset, bytes: written } of pending) durable.set(written, offset);
      pending = [];
    } else if (operation !== 'end') pending.push(operation);
  }
  expect(states).toBeGreaterThan(300);
});
