/**
 * Snapshots of several volumes at one moment: all are prepared, all are held, all commit, all are released.
 *
 *     coordinator   prepare  hold ·············· record ┬ release            the record may go
 *     others        prepare  hold  pending (durable) ···┴ release  counts (durable)
 *
 * The one sector write that makes the set exist is the coordinator's: its own snapshot, marked as the commit record of
 * the set. Before it every other member is durable, but pending: after a crash it counts only if the record is there, for which
 * `volume/set-outcome.ts` asks. Afterwards the others say durably that they count, and then nobody needs the record any
 * more. If it goes before that, the coordinator's start block remembers it (`store/control-file.ts`).
 *
 * No volume is written between its own member's publication and the end of the commit; so a member that is withdrawn has
 * no copies that others read through it.
 */
import { withinLimit } from '../copy-on-write/write-gate.js';
import type { Clock } from '../environment.js';
import { SnapshotState } from '../format/control-block.js';
import type { Creation } from './create.js';
import type { SnapshotRecord } from './record.js';

/** The first is the coordinator. */
export type Creations = readonly [Creation, ...Creation[]];

/**
 * Takes them all, or none. What keeps two sets of the same volumes from waiting for each other is the caller's: each volume
 * is taken by one set at a time, in one order for all.
 * @param freeze called when everything is prepared, before writes are held; answers how long they may be
 * @param onRelease called as soon as writes go on again
 * @throws HoldTimeoutError, LimitError, NoSpaceError, DeviceError; then nothing is left of any, or (see `skipUnused`) nobody is
 *   shown one of them before the next opening
 */
export async function takeTogether(
  creations: Creations,
  clock: Clock,
  freeze: () => number | Promise<number>,
  onRelease: (isTaken: boolean) => void = () => undefined,
): Promise<readonly SnapshotRecord[]> {
  const [coordinator, ...others] = creations;
  const records: SnapshotRecord[] = [];
  const recordState = others.length > 0 ? SnapshotState.setRecord : 0;
  try {
    await settled(creations.map((creation) => creation.prepare()));
    const limitMs = await freeze();
    const deadline = clock.monotonic() + limitMs;
    await settled(creations.map((creation) => creation.hold(limitMs)));
    // Until the record is written every volume can still be let go.
    const pending = settled(others.map((other) => other.publish(SnapshotState.setPending)));
    if (others.length > 0)
      await withinLimit(clock, deadline - clock.monotonic(), pending, 'members of the set were not written');
    await coordinator.publish(recordState);
    records.push(coordinator.adopt(recordState));
    for (const other of others) records.push(other.adopt(SnapshotState.setPending));
  } catch (error) {
    await abandon(creations, error);
    throw error;
  } finally {
    for (const creation of creations) creation.release();
    onRelease(records.length > 0);
  }
  await complete(creations, records);
  // None of them is shown before all are as they will stay.
  await settled(creations.map((creation, i) => skip(creation, records[i])));
  for (const record of records) record.pending = false;
  return records;
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

async function skip(creation: Creation, record: SnapshotRecord | undefined): Promise<void> {
  if (record !== undefined) await creation.skip(record);
}

/** Settles when all have; then throws the first error. */
async function settled(work: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) if (result.status === 'rejected') throw result.reason;
}
