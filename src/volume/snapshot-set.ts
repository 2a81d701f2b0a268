/** One moment over several volumes. */
import { InvalidArgumentError } from '../errors.js';
import { type Guid, guidFrom } from '../format/guid.js';
import { type CreateSnapshotOptions, Creation } from '../snapshot/create.js';
import { holdLimitOf } from '../snapshot/hold.js';
import { type Creations, takeTogether } from '../snapshot/set.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { type SnapshotWriter, type WriterFailure, Writers } from '../snapshot/writers.js';
import type { VolumeParts } from './assemble.js';
import { placeOf } from './set-outcome.js';
import type { Volume } from './volume.js';

export interface CreateSnapshotSetOptions extends CreateSnapshotOptions {
  /** Applications that bring their data into order first. */
  readonly writers?: readonly SnapshotWriter[];
  /** How long they may be frozen in all before writes are held, and until the commit; default 60,000 ms. */
  readonly freezeTimeoutMs?: number;
}

export interface SnapshotSet {
  readonly id: Guid;
  /** In the order of the volumes. */
  readonly snapshots: readonly Snapshot[];
  /** Writers that failed when the set was there already. */
  readonly writerFailures: readonly WriterFailure[];
}

type Writer = NonNullable<VolumeParts['writer']>;

const DEFAULT_FREEZE_TIMEOUT_MS = 60_000;

/**
 * Takes a snapshot of each volume at one moment: what was acknowledged on any of them before something else began on
 * another is in the set if that is. Either all of them exist afterwards, whatever fails and wherever the power is cut,
 * or none.
 * @throws as `Volume.createSnapshot`, and WriterFailedError; then there is no new snapshot on any of them
 */
export async function createSnapshotSet(
  volumes: readonly Volume[],
  options: CreateSnapshotSetOptions = {},
): Promise<SnapshotSet> {
  if (volumes.length === 0) throw new InvalidArgumentError('a snapshot set needs at least one volume');
  if (new Set(volumes).size < volumes.length)
    throw new InvalidArgumentError('a volume is named twice in one snapshot set');
  holdLimitOf(options);
  // One order for all sets: two of them that share volumes cannot wait for each other.
  const inOrder = [...volumes].sort((a, b) => a.serial - b.serial);
  const held = new Map<Volume, Writer>();
  const take = async (index: number): Promise<SnapshotSet> => {
    const volume = inOrder[index];
    if (volume === undefined) return takeSet(volumes, (each) => held.get(each), options);
    return volume.whileCreating((writer) => {
      held.set(volume, writer);
      return take(index + 1);
    });
  };
  return take(0);
}

async function takeSet(
  volumes: readonly Volume[],
  partsOf: (volume: Volume) => Writer | undefined,
  options: CreateSnapshotSetOptions,
): Promise<SnapshotSet> {
  const parts = volumes.flatMap((volume) => partsOf(volume) ?? []);
  const [first, ...rest] = parts;
  const [firstVolume] = volumes;
  if (first === undefined || firstVolume === undefined)
    throw new InvalidArgumentError('a snapshot set needs at least one volume');
  const { environment } = first.engine;
  const { clock, random } = environment;
  const setId = guidFrom(random);
  const ids = parts.map(() => guidFrom(random));
  const [recordId = ''] = ids;
  const coordinator = { ...placeOf(firstVolume.parts.device, first.engine.store), recordId };
  const hasWriters = options.writers !== undefined && options.writers.length > 0;
  const creationOf = ({ engine }: Writer, index: number) =>
    new Creation(engine, ids[index] ?? '', options, {
      setId,
      hasWriters,
      coordinator: rest.length === 0 ? undefined : coordinator,
    });
  const creations: Creations = [creationOf(first, 0), ...rest.map((part, i) => creationOf(part, i + 1))];
  const writers = new Writers(options.writers ?? [], clock, setId);
  const freezeLimitMs = options.freezeTimeoutMs ?? DEFAULT_FREEZE_TIMEOUT_MS;
  let thawing: Promise<readonly WriterFailure[]> | undefined;
  try {
    await writers.prepare();
    let deadline = Infinity;
    const freeze = async () => {
      deadline = clock.monotonic() + freezeLimitMs;
      await writers.freeze(freezeLimitMs);
    };
    const holdLimit = () => Math.min(holdLimitOf(options), Math.max(1, deadline - clock.monotonic()));
    // Before anything else: nobody needs to stay frozen once writes go on.
    const onRelease = (isTaken: boolean) => {
      if (isTaken) thawing = writers.thaw();
    };
    const steps = { freeze: hasWriters ? freeze : undefined, holdLimit, onRelease };
    const records = await takeTogether(creations, clock, steps);
    const failures = [...((await thawing) ?? []), ...(await writers.postSnapshot())];
    return {
      id: setId,
      snapshots: parts.flatMap(({ history }, i) => {
        const record = records[i];
        return record === undefined ? [] : history.handleOf(record);
      }),
      writerFailures: failures,
    };
  } catch (error) {
    await thawing;
    await writers.abort();
    throw error;
  }
}
