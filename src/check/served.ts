/**
 * Looks for damage in the snapshots of a volume while it is in use: what the devices hold is compared with what this
 * process, which owns the volume, knows to be durable.
 *
 * Nothing is reported that is only under way. A snapshot that takes no copies any more changes only while its record's
 * `resizing` is held, so it is read under that and must be exactly as in memory. The newest one goes on taking copies while its
 * table is read: what was durable before must be found. If it is not, or the table does not make sense, it is
 * read once more while no group is being written (the commit pool has one worker, and this is it), and that reading counts.
 *
 * Left out: files that no snapshot owns. Those that are being made or removed look the same, and the next opening
 * puts the others right.
 */
import { isDeepStrictEqual } from 'node:util';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { BlockTable } from '../diff-area/block-table.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { loadDiffArea } from '../diff-area/load.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import type { Clock } from '../environment.js';
import { FormatError, ReadOnlyError, UnsupportedError } from '../errors.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { ControlFile } from '../store/control-file.js';
import { readLocationList } from '../store/location-list.js';
import type { AreaFile } from '../store/store.js';
import type { BlockNumber } from '../units.js';
import type { Engine } from '../volume/engine.js';
import type { Volume } from '../volume/volume.js';
import { checkWindowsVolume, type Problem } from './check.js';
import { checkCatalog, checkSkips, checkTable, takingTurns } from './rules.js';
import { type ScrubOptions, scrub } from './scrub.js';

export interface ServedCheckOptions extends ScrubOptions {
  /** Also read every copy and test its checksum. */
  readonly scrub?: boolean;
}

/** @throws ReadOnlyError if the volume is open for reading only (`checkVolume` is for those), ClosedError, DeviceError */
export async function checkServedVolume(
  volume: Volume,
  options: ServedCheckOptions = {},
): Promise<Problem[]> {
  const { life, writer, windows, device } = volume.parts;
  if (windows !== undefined) return life.run(() => checkWindowsVolume(device));
  if (writer === undefined) throw new ReadOnlyError(`${device.name} is open for reading only`);
  const { engine } = writer;
  return life.run(async () => {
    const records = [...engine.chain.records];
    const problems = await checkControl(engine.store.control);
    for (const record of records) {
      options.signal?.throwIfAborted();
      problems.push(...(await checkRecord(engine, record)));
    }
    problems.push(...checkSkips(records));
    if (options.scrub === true) problems.push(...(await scrub(records, options)));
    return problems;
  });
}

async function checkControl(control: ControlFile): Promise<Problem[]> {
  try {
    const { onDevice, inMemory } = await control.reread();
    const problems = checkCatalog(onDevice.entries, []);
    if (!isDeepStrictEqual(onDevice.entries, inMemory)) {
      problems.push({ code: 'catalog', message: 'the control file does not say what was written to it' });
    }
    return problems;
  } catch (error) {
    return [{ code: 'store-damaged', message: messageOf(error) }];
  }
}

/** Damage in words. @throws what is no damage */
function messageOf(error: unknown): string {
  if (error instanceof FormatError || error instanceof UnsupportedError) return error.message;
  throw error;
}

async function checkRecord(engine: Engine, record: SnapshotRecord): Promise<Problem[]> {
  const { area, damage } = record;
  if (damage !== undefined) return [damaged(record, damage.message)];
  if (area === undefined) return [];
  const { clock } = engine.environment;
  const isNewest = () => engine.copyOnWrite.takesCopies(area);
  const read = () => record.resizing.runExclusive(() => compare(record, area, clock));
  if (!isNewest()) return read();
  const found = await compareMoving(record, area, clock);
  if (found.length === 0 || record.isGone) return [];
  // Whoever holds `resizing` waits for devices only, so the commit pool may wait for it.
  return (await engine.pools.commit.add(read)) ?? [];
}

const damaged = ({ id }: SnapshotRecord, message: string): Problem => ({
  code: 'snapshot-damaged',
  snapshot: id,
  message,
});

/** While nothing changes the diff area: it must be on its device as it is in memory. */
async function compare(record: SnapshotRecord, area: DiffArea, clock: Clock): Promise<Problem[]> {
  if (record.isGone) return [];
  try {
    const loaded = await load(record, area, clock);
    // Of one that is being merged the file may hold less by now.
    const missing = area.isCut
      ? await firstMissing(loaded.table.blocks(), loaded.table, area.table)
      : await firstMissing(area.table.blocks(), area.table, loaded.table);
    const surplus = !area.isCut && loaded.table.size !== area.table.size;
    const problems = await checkTable(record.id, loaded);
    if (missing !== undefined)
      problems.push(damaged(record, `the entry of block ${missing} is not in its table`));
    else if (surplus) problems.push(damaged(record, 'its table holds entries that were never written'));
    if (!skipsTheSame(loaded, area)) problems.push(damaged(record, SKIPS_OTHERS));
    return problems;
  } catch (error) {
    return [damaged(record, messageOf(error))];
  }
}

const SKIPS_OTHERS = 'its bitmaps are not those that were written';

const skipsTheSame = ({ unused: a }: DiffArea, { unused: b }: DiffArea): boolean =>
  a === undefined || b === undefined ? a === b : a.isEqual(b);

/** While copies are added: what was durable when this began must be on the device. */
async function compareMoving(record: SnapshotRecord, area: DiffArea, clock: Clock): Promise<Problem[]> {
  const before = presenceOf(area.table);
  try {
    const loaded = await load(record, area, clock);
    const missing = await firstMissing(blocksIn(before), area.table, loaded.table);
    const problems = await checkTable(record.id, loaded);
    if (missing !== undefined)
      problems.push(damaged(record, `the entry of block ${missing} is not in its table`));
    if (!skipsTheSame(loaded, area)) problems.push(damaged(record, SKIPS_OTHERS));
    return problems;
  } catch (error) {
    return [damaged(record, messageOf(error))];
  }
}

/** The diff area as the next opening would find it. */
async function load(record: SnapshotRecord, { item, file }: DiffArea, clock: Clock): Promise<DiffArea> {
  const list = await readLocationList(file.device, item.locationOffset);
  const readOnly: AreaFile = {
    device: file.device,
    runs: list.runs,
    take: refuse,
    giveBack: refuse,
    close: refuse,
    remove: refuse,
  };
  const { area } = await loadDiffArea({ file: readOnly, list }, item, record.item.volumeSize, clock);
  return area;
}

async function refuse(): Promise<never> {
  throw new ReadOnlyError('a diff area that is only looked at is not changed');
}

/** Which blocks a table has, by page: a bit each. */
function presenceOf(table: BlockTable): Map<number, Uint32Array> {
  const pages = new Map<number, Uint32Array>();
  for (let page = 0; page * BLOCKS_PER_PAGE < table.blockCount; page++) {
    if (!table.hasPage(page)) continue;
    const bits = emptyPresence();
    table.addPresence(page, bits);
    pages.set(page, bits);
  }
  return pages;
}

function* blocksIn(pages: ReadonlyMap<number, Uint32Array>): Generator<BlockNumber> {
  for (const [page, bits] of pages) yield* setBits(bits, page * BLOCKS_PER_PAGE);
}

/** The first block whose entry is another one, or none, on the device. */
async function firstMissing(
  blocks: Iterable<BlockNumber>,
  inMemory: BlockTable,
  onDevice: BlockTable,
): Promise<BlockNumber | undefined> {
  for await (const some of takingTurns(blocks)) {
    const missing = some.find((block) => !isSame(block, inMemory, onDevice));
    if (missing !== undefined) return missing;
  }
  return undefined;
}

function isSame(block: BlockNumber, a: BlockTable, b: BlockTable): boolean {
  const slot = a.slotOf(block);
  return slot === b.slotOf(block) && (slot === FixedSlot.zeros || a.checksumAt(slot) === b.checksumAt(slot));
}
