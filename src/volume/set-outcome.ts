/**
 * Was the set that a pending snapshot belongs to ever completed? Its commit record says so, in the store of another
 * volume, the coordinator's.
 *
 * What is told here is acted on durably, so the record must be durable first: a process that was killed may have left it in
 * the page cache alone, and the next power cut would take it from the one volume but not from the other.
 *
 * Shared state: for each environment the stores that are open for writing; changed between awaits only.
 */
import { resolve } from 'node:path';
import type { BlockDevice } from '../device/block-device.js';
import { FileDevice } from '../device/file-device.js';
import { MemoryDevice } from '../device/memory-device.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { VolsnapError } from '../errors.js';
import type { SetCoordinator } from '../format/application-information.js';
import type { Guid } from '../format/guid.js';
import type { ControlFile } from '../store/control-file.js';
import { DirectoryStore } from '../store/directory-store.js';
import { InVolumeStore } from '../store/in-volume-store.js';
import type { SetOutcome } from '../store/set-records.js';
import type { AttachedStore, Store } from '../store/store.js';

/** A snapshot that counts only if its set was completed. */
export interface UndecidedSet {
  readonly setId: Guid;
  /** The snapshot in question. */
  readonly snapshotId: Guid;
  readonly coordinator: SetCoordinator;
  /** Is the volume being opened for writing? Then the answer is acted on. */
  readonly writable: boolean;
}

/** Finds out. `unknown` where it cannot be told: the snapshot stays pending. What it throws fails the opening. */
export type SetResolver = (question: UndecidedSet) => Promise<SetOutcome>;

export interface OutcomeOptions {
  readonly environment?: Environment;
  /** Default: true. Without it nothing is written, and the answer must not be acted on. */
  readonly writable?: boolean;
}

/** Where a volume and its store are, in a form that finds them again from anywhere. */
export function placeOf(device: BlockDevice, store: AttachedStore): Omit<SetCoordinator, 'recordId'> {
  const path = (name: string) => ('path' in device ? resolve(name) : name);
  return {
    volumeId: store.control.start.volumeId,
    volume: path(device.name),
    store: store.layout === 'directory' ? path(store.name) : '',
  };
}

interface OpenStore {
  readonly place: Omit<SetCoordinator, 'recordId'>;
  readonly control: ControlFile;
}

const openStores = new WeakMap<Environment, Set<OpenStore>>();

/** Lets members of sets that are opened by this process ask here. @returns ends that */
export function announceStore(
  environment: Environment,
  device: BlockDevice,
  store: AttachedStore,
): () => void {
  const all = openStores.get(environment) ?? new Set();
  openStores.set(environment, all);
  const open = { place: placeOf(device, store), control: store.control };
  all.add(open);
  return () => all.delete(open);
}

/**
 * What the store of a coordinator says. For resolvers of one's own, which know where it is.
 * @param device that of the coordinator's volume; stays open
 * @throws VolsnapError where there is no such store, it is damaged, or somebody else has it
 */
export async function setOutcomeIn(
  device: BlockDevice,
  place: Store,
  { volumeId, recordId }: SetCoordinator,
  options: OutcomeOptions = {},
): Promise<SetOutcome> {
  const { environment = systemEnvironment, writable = true } = options;
  const store = await place.attach(device, { environment, writable });
  try {
    const { control } = store;
    if (control.start.volumeId !== volumeId) return 'unknown';
    if (writable) await control.makeDurable();
    return await control.outcomeOf(recordId);
  } finally {
    await store.close();
  }
}

/** Looks among the volumes that this process has open, then where the coordinator was when the set was taken. */
export async function findSetOutcome(
  { coordinator, writable }: UndecidedSet,
  environment: Environment = systemEnvironment,
): Promise<SetOutcome> {
  const { volumeId, store, volume, recordId } = coordinator;
  const open = [...(openStores.get(environment) ?? [])].filter(
    ({ place }) => place.volumeId === volumeId && place.store === store && place.volume === volume,
  );
  const [only] = open;
  if (only !== undefined) return open.length === 1 ? only.control.outcomeOf(recordId) : 'unknown';
  // Where nothing is open under a path, the names of devices are no paths.
  if (environment !== systemEnvironment) return 'unknown';
  try {
    if (store !== '') {
      // The store alone tells; the volume may be elsewhere.
      await using absent = new MemoryDevice(0);
      return await setOutcomeIn(absent, new DirectoryStore(store), coordinator, { writable });
    }
    await using device = await FileDevice.open(volume, { writable });
    return await setOutcomeIn(device, new InVolumeStore(), coordinator, { writable });
  } catch (error) {
    // Not there, not readable, or somebody's: it may be another day.
    if (error instanceof VolsnapError) return 'unknown';
    throw error;
  }
}
