/**
 * Looks for everything that can be wrong with a store, without changing it.
 *
 * What a crash leaves behind and the next opening puts right by itself is no problem and is not reported.
 */
import type { BlockDevice } from '../device/block-device.js';
import { systemEnvironment } from '../environment.js';
import { VolsnapError } from '../errors.js';
import { scrubCopies } from '../scrub/copies.js';
import { Pace } from '../scrub/pace.js';
import { checkCatalog, checkSkips, checkTable } from '../scrub/rules.js';
import type { ScrubOptions } from '../scrub/scrub.js';
import type { Problem } from '../snapshot/problem.js';
import type { AttachedStore, Store } from '../store/store.js';
import { closeAreas, FOREIGN, findStore, loadStore } from '../volume/open.js';
import { TakenOver } from '../volume/taken-over.js';
import { WindowsHistory } from '../volume/windows-history.js';

export interface CheckOptions extends Omit<ScrubOptions, 'repair'> {
  /** Default: what is found. */
  readonly store?: Store;
  /** Also read every copy and test its checksum. */
  readonly scrub?: boolean;
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
    return await checkStore(device, store, options);
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

/** Shadow copies of Windows. They have no checksums: only what leads to their blocks can be looked at. */
export async function checkWindowsVolume(device: BlockDevice): Promise<Problem[]> {
  try {
    return problemsOf(await WindowsHistory.open(device));
  } catch (error) {
    return [storeProblem(error)];
  }
}

function problemsOf({ snapshots, notes }: Pick<WindowsHistory, 'snapshots' | 'notes'>): Problem[] {
  const damaged = snapshots.filter(({ state }) => state === 'damaged');
  return [
    ...damaged.map(({ id, problem }) => ({
      code: 'snapshot-damaged' as const,
      snapshot: id,
      message: problem ?? '',
    })),
    ...notes.map((message) => ({ code: 'note' as const, message })),
  ];
}

async function checkStore(
  device: BlockDevice,
  store: AttachedStore,
  options: CheckOptions,
): Promise<Problem[]> {
  const { records, recovery, change } = await loadStore(store, {
    clock: systemEnvironment.clock,
    writable: false,
    onVolumeChanged: 'keep',
    onDamaged: 'refuse',
  });
  try {
    const problems: Problem[] = [];
    if (change !== undefined) problems.push({ code: 'volume-changed', message: change });
    const takenOver = await TakenOver.open(device, store, records);
    if (takenOver !== undefined) problems.push(...problemsOf(takenOver));
    problems.push(...checkCatalog(store.control.entries, records));
    for (const record of records) {
      if (record.damage !== undefined) {
        problems.push({ code: 'snapshot-damaged', snapshot: record.id, message: record.damage.message });
      }
      if (record.area !== undefined)
        problems.push(...(await checkTable(record.id, record.area, systemEnvironment.clock)));
    }
    problems.push(...checkSkips(records));
    if (recovery.clean) {
      const orphans = await store.orphans();
      problems.push(
        ...orphans.map((name) => ({ code: 'orphan' as const, message: `${name} belongs to no snapshot` })),
      );
    }
    if (options.scrub === true) {
      const { bytesPerSecond = 0, signal, onProgress } = options;
      const pace = new Pace(systemEnvironment.clock, bytesPerSecond);
      problems.push(...(await scrubCopies(records, { pace, signal, onProgress })));
    }
    return problems;
  } finally {
    await closeAreas(records);
  }
}
