/**
 * Looks for damage in the snapshots of a volume while it is in use: what the devices hold is compared with what this
 * process, which owns the volume, knows to be durable.
 *
 * Nothing is reported that is only under way. Everything is read at leisure first, while copies are added, snapshots are deleted and
 * merged; what was durable before must be found. If it is not, or does not make sense, it is read once more while nothing
 * changes it, and that reading counts: a snapshot that takes no copies any more changes only while its record's `resizing` is
 * held; of the newest also no group may be being written (the commit pool has one worker, and this is it then).
 *
 * Left out: files that no snapshot owns. Those that are being made or removed look the same, and the next opening
 * puts the others right.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { BlockDevice } from '../device/block-device.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { BlockTable } from '../diff-area/block-table.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { loadDiffArea } from '../diff-area/load.js';
import { pagesOf } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import type { Clock } from '../environment.js';
import { DeviceError, FormatError, ReadOnlyError, UnsupportedError, VolsnapError } from '../errors.js';
import type { SnapshotChain } from '../snapshot/chain.js';
import type { Problem } from '../snapshot/problem.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { CONTROL_BLOCKS, type ControlFile } from '../store/control-file.js';
import { readLocationList } from '../store/location-list.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type BlockNumber } from '../units.js';
import type { Pace } from './pace.js';
import { PacedReads } from './paced-reads.js';
import { checkCatalog, checkSkips, checkTable, takingTurns } from './rules.js';

/** Of the volume whose devices are looked at. */
export interface StoredParts {
  readonly chain: SnapshotChain;
  readonly control: ControlFile;
  readonly copyOnWrite: CopyOnWrite;
  readonly pools: Pools;
  readonly clock: Clock;
}

export interface StoredWalk {
  readonly pace: Pace;
  readonly signal?: AbortSignal | undefined;
  /** Copies that were found bad: an opening that has to prove their entries by them would leave those out. */
  readonly badCopies?: readonly Problem[];
  /** Write the control file again where it is not what was written? */
  readonly repair: boolean;
  /** Told of each problem at once. */
  readonly onProblem: (problem: Problem) => void;
}

/** Compares what the devices hold with what is known to be durable: everything but the copies themselves. @throws DeviceError */
export async function checkStored(parts: StoredParts, walk: StoredWalk): Promise<Problem[]> {
  const records = [...parts.chain.records];
  const found: Problem[] = [];
  const tell = (problems: readonly Problem[]) => {
    found.push(...problems);
    for (const problem of problems) walk.onProblem(problem);
  };
  tell(await checkControl(parts.control, walk));
  for (const record of records) {
    walk.signal?.throwIfAborted();
    tell(await checkRecord(parts, record, walk));
  }
  tell(checkSkips(records));
  return found;
}

async function checkControl(control: ControlFile, { pace, signal, repair }: StoredWalk): Promise<Problem[]> {
  await pace.take((CONTROL_BLOCKS + 1) * BLOCK_SIZE, signal);
  const problems = await lookAtControl(control);
  if (problems.length === 0 || !repair) return problems;
  await control.rewrite();
  return (await lookAtControl(control)).length === 0
    ? problems.map((problem) => ({ ...problem, repaired: true }))
    : problems;
}

async function lookAtControl(control: ControlFile): Promise<Problem[]> {
  try {
    const { onDevice, isSame } = await control.reread();
    const problems = checkCatalog(onDevice.entries, []);
    if (!isSame) {
      problems.push({ code: 'catalog', message: 'the control file does not say what was written to it' });
    }
    return problems;
  } catch (error) {
    return [{ code: 'store-damaged', message: messageOf(error) }];
  }
}

/** Damage in words. @param also errors that are damage too @throws what is no damage */
function messageOf(error: unknown, also?: typeof DeviceError): string {
  const isDamage =
    error instanceof FormatError ||
    error instanceof UnsupportedError ||
    (also !== undefined && error instanceof also);
  if (isDamage) return error.message;
  throw error;
}

async function checkRecord(
  { copyOnWrite, pools, clock }: StoredParts,
  record: SnapshotRecord,
  { pace, signal, badCopies = [] }: StoredWalk,
): Promise<Problem[]> {
  const { area, damage } = record;
  if (damage !== undefined) return [damaged(record, damage.message)];
  if (area === undefined) return [];
  const isNewest = copyOnWrite.takesCopies(area);
  // First without keeping anybody waiting. What is found then may only have been under way.
  const own = badCopies.filter(({ snapshot }) => snapshot === record.id);
  const bad = new Set(own.flatMap(({ block, repaired }) => (block === undefined || repaired ? [] : [block])));
  const look = { device: new PacedReads(area.file.device, record, pace, signal), clock, bad };
  const compared = isNewest ? compareMoving(record, area, look) : compare(record, area, look);
  const isSound = await compared.then(
    (problems) => problems.length === 0,
    (error: unknown) => {
      signal?.throwIfAborted();
      if (!(error instanceof VolsnapError)) throw error;
      return false;
    },
  );
  if (isSound || record.isGone) return [];
  const again = () =>
    record.resizing.runExclusive(() => compare(record, area, { ...look, device: area.file.device }));
  // Whoever holds `resizing` waits for devices only, so the commit pool may wait for it.
  return (copyOnWrite.takesCopies(area) ? await pools.commit.add(again) : await again()) ?? [];
}

const damaged = ({ id }: SnapshotRecord, message: string): Problem => ({
  code: 'snapshot-damaged',
  snapshot: id,
  message,
});

/** How a diff area is read from where it lies. */
interface Look {
  readonly device: BlockDevice;
  readonly clock: Clock;
  /** Blocks whose entries need not be there. */
  readonly bad: ReadonlySet<BlockNumber>;
}

/** While nothing changes the diff area: it must be on its device as it is in memory. */
async function compare(record: SnapshotRecord, area: DiffArea, look: Look): Promise<Problem[]> {
  if (record.isGone) return [];
  try {
    const loaded = await load(record, area, look);
    // Of one that is being merged the file may hold less by now.
    const missing = area.isCut
      ? await firstMissing(loaded.table.blocks(), loaded.table, area.table, look)
      : await firstMissing(area.table.blocks(), area.table, loaded.table, look);
    const surplus = !area.isCut && loaded.table.size > area.table.size;
    const problems = await checkTable(record.id, loaded, look.clock);
    // Copies that spent moves may be gone by now, or bad.
    if (!area.isCut && look.bad.size === 0 && !movesTheSame(loaded, area))
      problems.push(damaged(record, MOVES_OTHERS));
    // What was written to one that is being deleted is cut off with its table.
    const written = area.isCut ? undefined : firstWritten(area, loaded);
    if (written !== undefined)
      problems.push(damaged(record, `its table does not say what was written to its block ${written}`));
    if (missing !== undefined)
      problems.push(damaged(record, `the entry of block ${missing} is not in its table`));
    else if (surplus) problems.push(damaged(record, 'its table holds entries that were never written'));
    if (!skipsTheSame(loaded, area)) problems.push(damaged(record, SKIPS_OTHERS));
    return problems;
  } catch (error) {
    return [damaged(record, messageOf(error, DeviceError))];
  }
}

const MOVES_OTHERS = 'its table does not say what has moved within the volume';

function movesTheSame({ moves: onDevice }: DiffArea, { moves }: DiffArea): boolean {
  if (onDevice.size !== moves.size) return false;
  for (const { from, to } of moves.all()) if (onDevice.targetOf(from) !== to) return false;
  return true;
}

/** The first block of which the device has not all that was written to the snapshot itself, durably. */
function firstWritten({ overlays }: DiffArea, { overlays: onDevice }: DiffArea): BlockNumber | undefined {
  if (!overlays.isProven) return undefined;
  for (const block of overlays.blocks())
    if (onDevice.enteredOf(block) !== overlays.enteredOf(block)) return block;
  return undefined;
}

const SKIPS_OTHERS = 'its bitmaps are not those that were written';

const skipsTheSame = ({ unused: a }: DiffArea, { unused: b }: DiffArea): boolean =>
  a === undefined || b === undefined ? a === b : a.isEqual(b);

/** While copies are added: what was durable when this began must be on the device. */
async function compareMoving(record: SnapshotRecord, area: DiffArea, look: Look): Promise<Problem[]> {
  const before = presenceOf(area.table);
  try {
    const loaded = await load(record, area, look);
    const missing = await firstMissing(blocksIn(before), area.table, loaded.table, look);
    const problems = await checkTable(record.id, loaded, look.clock);
    if (missing !== undefined)
      problems.push(damaged(record, `the entry of block ${missing} is not in its table`));
    if (!skipsTheSame(loaded, area)) problems.push(damaged(record, SKIPS_OTHERS));
    return problems;
  } catch (error) {
    return [damaged(record, messageOf(error, DeviceError))];
  }
}

/** The diff area as the next opening would find it. */
async function load(record: SnapshotRecord, { item }: DiffArea, { device, clock }: Look): Promise<DiffArea> {
  const list = await readLocationList(device, item.locationOffset);
  const readOnly: AreaFile = {
    device,
    runs: list.runs,
    take: refuse,
    giveBack: refuse,
    establish: refuse,
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
  for (const page of pagesOf([table], 0, Math.ceil(table.blockCount / BLOCKS_PER_PAGE))) {
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
  { clock, bad }: Look,
): Promise<BlockNumber | undefined> {
  for await (const some of takingTurns(blocks, clock)) {
    const missing = some.find((block) => !isSame(block, inMemory, onDevice) && !bad.has(block));
    if (missing !== undefined) return missing;
  }
  return undefined;
}

function isSame(block: BlockNumber, a: BlockTable, b: BlockTable): boolean {
  const slot = a.slotOf(block);
  return slot === b.slotOf(block) && (slot === FixedSlot.zeros || a.checksumAt(slot) === b.checksumAt(slot));
}
