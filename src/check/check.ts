/**
 * Looks for everything that can be wrong with a store, without changing it.
 *
 * What a crash leaves behind and the next opening puts right by itself is no problem and is not reported.
 */
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { systemEnvironment } from '../environment.js';
import { IntegrityError, VolsnapError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { AttachedStore, Store } from '../store/store.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';
import { closeAreas, FOREIGN, findStore, loadStore } from '../volume/open.js';
import { WindowsHistory } from '../volume/windows-history.js';
import { checkCatalog, checkTable } from './rules.js';

export interface Problem {
  readonly code: /** The store as a whole cannot be read. */
    | 'store-damaged'
    /** A snapshot cannot be read. */
    | 'snapshot-damaged'
    /** The volume was written, or changed its size, while volsnap was not there. */
    | 'volume-changed'
    /** Items of the control file contradict each other or the diff areas. */
    | 'catalog'
    /** Two copies share a slot. */
    | 'space'
    /** A copy fails its checksum. */
    | 'checksum'
    /** A file that no snapshot owns. */
    | 'orphan'
    /** Something odd about a store that Windows wrote. */
    | 'note';
  readonly message: string;
  readonly snapshot?: Guid;
}

export interface CheckOptions {
  /** Default: what is found. */
  readonly store?: Store;
  /** Also read every copy and test its checksum. */
  readonly scrub?: boolean;
  readonly signal?: AbortSignal;
  /** Copies tested and copies in all, in bytes. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

/**
 * @param device stays open
 * @returns nothing if all is well
 * @throws NotInitializedError if there is no store; DeviceError if it cannot be read
 */
export async function checkVolume(device: BlockDevice, options: CheckOptions = {}): Promise<Problem[]> {
  const place = options.store ?? (await findStore(device));
  if (place === FOREIGN) return checkWindowsVolume(device);
  let store: AttachedStore;
  try {
    store = await place.attach(device, { environment: systemEnvironment, writable: false });
  } catch (error) {
    return [storeProblem(error)];
  }
  try {
    return await checkStore(store, options);
  } finally {
    await store.close();
  }
}

/** Errors of devices and of use are not findings. */
function storeProblem(error: unknown): Problem {
  if (error instanceof VolsnapError && (error.code === 'FORMAT' || error.code === 'UNSUPPORTED')) {
    return { code: 'store-damaged', message: error.message };
  }
  throw error;
}

async function checkWindowsVolume(device: BlockDevice): Promise<Problem[]> {
  try {
    const history = await WindowsHistory.open(device);
    const damaged = history.snapshots.filter(({ state }) => state === 'damaged');
    return [
      ...damaged.map(({ id, problem }) => ({
        code: 'snapshot-damaged' as const,
        snapshot: id,
        message: problem ?? '',
      })),
      ...history.notes.map((message) => ({ code: 'note' as const, message })),
    ];
  } catch (error) {
    return [storeProblem(error)];
  }
}

async function checkStore(store: AttachedStore, options: CheckOptions): Promise<Problem[]> {
  const { records, recovery, change } = await loadStore(store, {
    writable: false,
    onVolumeChanged: 'keep',
    onDamaged: 'refuse',
  });
  try {
    const problems: Problem[] = [];
    if (change !== undefined) problems.push({ code: 'volume-changed', message: change });
    problems.push(...checkCatalog(store.control.entries, records));
    for (const record of records) {
      if (record.damage !== undefined) {
        problems.push({ code: 'snapshot-damaged', snapshot: record.id, message: record.damage.message });
      }
      if (record.area !== undefined) problems.push(...checkTable(record.id, record.area));
    }
    if (recovery.clean) {
      const orphans = await store.orphans();
      problems.push(
        ...orphans.map((name) => ({ code: 'orphan' as const, message: `${name} belongs to no snapshot` })),
      );
    }
    if (options.scrub === true) problems.push(...(await scrub(records, options)));
    return problems;
  } finally {
    await closeAreas(records);
  }
}

/** Copies read in one request. */
const RUN_BLOCKS = 64;

async function scrub(
  records: readonly SnapshotRecord[],
  { signal, onProgress }: CheckOptions,
): Promise<Problem[]> {
  const total = records.reduce((sum, { area }) => sum + (area?.table.size ?? 0) * BLOCK_SIZE, 0);
  const problems: Problem[] = [];
  let done = 0;
  for (const { id, area } of records) {
    if (area === undefined) continue;
    if (!(await area.hasSoundZeros())) {
      problems.push({
        code: 'checksum',
        snapshot: id,
        message: 'the block of zeros is not zero; other readers see it',
      });
    }
    for (const { block, count } of runsOf(area)) {
      signal?.throwIfAborted();
      for (const message of await testCopies(area, block, count))
        problems.push({ code: 'checksum', snapshot: id, message });
      done += count * BLOCK_SIZE;
      onProgress?.(done, total);
    }
  }
  return problems;
}

/** Copies of consecutive blocks in consecutive slots. */
function* runsOf(area: DiffArea): Generator<{ block: BlockNumber; count: number }> {
  const { table } = area;
  let block = -1;
  let count = 0;
  for (const next of table.blocks()) {
    const follows = next === block + count && count < RUN_BLOCKS;
    if (follows && area.canReadTogether(slotOf(area, block), slotOf(area, next), count)) {
      count++;
      continue;
    }
    if (count > 0) yield { block, count };
    block = next;
    count = 1;
  }
  if (count > 0) yield { block, count };
}

const slotOf = ({ table }: DiffArea, block: BlockNumber): Slot => table.slotOf(block);

/** What is wrong with the copies of `count` blocks from `block`; one by one only if something is. */
async function testCopies(area: DiffArea, block: BlockNumber, count: number): Promise<string[]> {
  try {
    await area.readCopies(block, area.table.slotOf(block), new Uint8Array(count * BLOCK_SIZE));
    return [];
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error;
    if (count === 1) return [error.message];
  }
  const messages: string[] = [];
  for (let i = 0; i < count; i++) messages.push(...(await testCopies(area, block + i, 1)));
  return messages;
}
