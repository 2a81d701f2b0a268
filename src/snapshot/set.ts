/**
 * Snapshots of several volumes at one moment: all are prepared, all are held, all commit, all are released.
 *
 *     coordinator   prepare  hold, flush ············· record ┬ release            the record may go
 *     others        prepare  hold, flush, pending (durable) ··┴ release  counts (durable)
 *
 * The one sector write that makes the set exist is the coordinator's: its own snapshot, marked as the commit record of
 * the set. Before it every other member is durable, but pending: after a crash it counts only if the record is there, for which
 * `volume/set-outcome.ts` asks. Afterwards the others say durably that they count, and then nobody needs the record any
 * more. If it goes before that, the coordinator's start block remembers it (`store/control-file.ts`).
 *
 * No volume is written between its own member's publication and the end of the commit; so a member that is withdrawn has
 * no copies that others read through it.
 */
import { allDone } from '../all-done.js';
import { withinLimit } from '../copy-on-write/write-gate.js';
import type { Clock } from '../environment.js';
import { assert } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { guidFrom } from '../format/guid.js';
import { type CreateContext, type CreateSnapshotOptions, Creation } from './create.js';
import { holdLimitOf } from './hold.js';
import type { SnapshotPurpose } from './purpose.js';
import type { SnapshotRecord } from './record.js';

/** The first is the coordinator. */
export type Creations = readonly [Creation, ...Creation[]];

/**
 * A set of one. One at a time on each volume.
 * @throws HoldTimeoutError, LimitError, NoSpaceError, RevertInProgressError, DeviceError; then there is no new snapshot, unless
 *   it is its purpose that failed to begin
 */
export async function createSnapshot(
  context: CreateContext,
  options: CreateSnapshotOptions,
  purpose?: SnapshotPurpose,
): Promise<SnapshotRecord> {
  const limitMs = holdLimitOf(options);
  const { random, clock } = context.environment;
  const id = guidFrom(random);
  const set = { setId: guidFrom(random), coordinator: undefined, hasWriters: false };
  const creation = new Creation(context, id, options, set, purpose);
  const [record] = await takeTogether([creation], clock, { holdLimit: () => limitMs });
  assert(record !== undefined, () => 'a set of one has no member');
  return record;
}

/** What goes on around the holding of the volumes of a set. */
export interface SetSteps {
  /** Called when everything is prepared; writes go on. */
  readonly freeze?: (() => Promise<void>) | undefined;
  /** How long writes may be held from now on, in milliseconds; asked once they are frozen. */
  readonly holdLimit: () => number;
  /** Called as soon as writes go on again. */
  readonly onRelease?: (isTaken: boolean) => void;
}

/**
 * Takes them all, or none. What keeps two sets of the same volumes from waiting for each other is the caller's: each volume
 * is taken by one set at a time, in one order for all.
 * @throws HoldTimeoutError, LimitError, NoSpaceError, DeviceError; then nothing is left of any, or (see `skipUnused`) nobody is
 *   shown one of them before the next opening
 */
export async function takeTogether(
  creations: Creations,
  clock: Clock,
  { freeze, holdLimit, onRelease }: SetSteps,
): Promise<readonly SnapshotRecord[]> {
  const [coordinator, ...others] = creations;
  const recordState = others.length > 0 ? SnapshotState.setRecord : 0;
  const records: SnapshotRecord[] = [];
  try {
    try {
      await allDone(creations.map((creation) => creation.prepare(holdLimit())));
      if (freeze !== undefined) {
        // Applications may take their time.
        for (const creation of creations) creation.slow(false);
        await freeze();
      }
      if (others.length > 0 || freeze !== undefined)
        await allDone(creations.map((creation) => creation.settleAgain(holdLimit())));
      await publishAll(creations, clock, holdLimit(), recordState);
    } catch (error) {
      await abandon(creations, error);
      throw error;
    }
    // The set exists, whatever comes then.
    records.push(coordinator.adopt(recordState));
    for (const other of others) records.push(other.adopt(SnapshotState.setPending));
    await allDone(creations.map((creation, i) => ifTaken(records[i], (record) => creation.begin(record))));
  } finally {
    for (const creation of creations) creation.release();
    onRelease?.(records.length > 0);
  }
  await complete(creations, records);
  // None of them is shown before all are as they will stay.
  await allDone(creations.map((creation, i) => ifTaken(records[i], (record) => creation.skip(record))));
  for (const record of records) record.pending = false;
  return records;
}

/** Holds all volumes from the same turn on, and makes the set exist. @throws HoldTimeoutError, LimitError, DeviceError; then `abandon` must follow */
async function publishAll(
  creations: Creations,
  clock: Clock,
  limitMs: number,
  recordState: number,
): Promise<void> {
  const [coordinator, ...others] = creations;
  const deadline = clock.monotonic() + limitMs;
  // Until the record is written every volume can still be let go.
  const announce = async (other: Creation) => {
    const published = other.publish(SnapshotState.setPending);
    await withinLimit(clock, deadline - clock.monotonic(), published, 'a member of the set was not written');
  };
  await allDone([
    coordinator.hold(limitMs),
    ...others.map((other) => other.hold(limitMs, () => announce(other))),
  ]);
  await coordinator.publish(recordState);
}

/** Each volume goes on as soon as its own member is surely gone; none of them before the record is. */
async function abandon([coordinator, ...others]: Creations, cause: unknown): Promise<void> {
  const isDecided = await coordinator.withdraw(cause);
  await Promise.allSettled(
    [coordinator, ...others].map(async (creation) => {
      if (isDecided) await creation.withdraw(cause);
      else creation.shut(cause);
      creation.release();
      await creation.discard();
    }),
  );
}

/** The set exists; what is left to do is for the case that the record goes. */
async function complete(
  [coordinator, ...others]: Creations,
  [record, ...members]: readonly SnapshotRecord[],
): Promise<void> {
  if (record === undefined || others.length === 0) return;
  const cleared = await Promise.all(
    others.map((other, i) => {
      const member = members[i];
      return member === undefined || other.clear(member, SnapshotState.setPending);
    }),
  );
  if (cleared.every(Boolean)) await coordinator.clear(record, SnapshotState.setRecord);
}

async function ifTaken(
  record: SnapshotRecord | undefined,
  action: (record: SnapshotRecord) => Promise<void>,
): Promise<void> {
  if (record !== undefined) await action(record);
}
