/** Calls on snapshots themselves, as the oracle sees them: each is reported when it begins and when it ends, and the snapshot may go meanwhile. */
import type { ByteOffset } from '../units.js';
import { report } from './model-mismatch.js';
import type { WriteRecord } from './sector-history.js';
import type { SnapshotModel } from './snapshot-model.js';
import type { Ticks } from './ticks.js';

/** A call on a snapshot that has begun. */
export interface SnapshotCall {
  readonly snapshot: SnapshotModel;
  readonly start: number;
}

/** A write to a snapshot itself that has begun. */
export interface SnapshotWrite extends SnapshotCall {
  readonly write: WriteRecord;
}

export class SnapshotCalls {
  readonly #ticks: Ticks;
  readonly #find: (name: string) => SnapshotModel | undefined;

  constructor(ticks: Ticks, find: (name: string) => SnapshotModel | undefined) {
    this.#ticks = ticks;
    this.#find = find;
  }

  /** A read begins, if the model knows that snapshot. */
  beginRead(name: string): SnapshotCall | undefined {
    const call = this.begin(name);
    call?.snapshot.beginRead(call.start);
    return call;
  }

  /** Any call begins, as a flush. */
  begin(name: string): SnapshotCall | undefined {
    const snapshot = this.#find(name);
    if (snapshot === undefined) return undefined;
    snapshot.readers++;
    return { snapshot, start: this.#ticks.next() };
  }

  /** The read returned whole sectors. Without `actual` it failed, and nothing is learnt. @throws ModelMismatch */
  endRead({ snapshot, start }: SnapshotCall, offset: ByteOffset, actual?: Uint8Array): void {
    snapshot.readers--;
    snapshot.endRead(start);
    // Before its creation returned nothing is known.
    if (actual !== undefined && snapshot.isClosed) report(snapshot.check(offset, actual, start));
  }

  /** A write of whole sectors, which were read before, begins; `undefined` if there is no such snapshot, or they were not. */
  beginWrite(name: string, offset: ByteOffset, bytes: Uint8Array): SnapshotWrite | undefined {
    if (this.#find(name)?.isKnown(offset, bytes.byteLength) !== true) return undefined;
    const call = this.begin(name);
    return call && { ...call, write: call.snapshot.beginWrite(offset, bytes, call.start) };
  }

  endWrite({ snapshot, write }: SnapshotWrite, result: 'done' | 'failed'): void {
    snapshot.readers--;
    snapshot.endWrite(write, this.#ticks.next(), result === 'failed');
  }

  /** A flush returned: writes that ended before it began are durable; or it failed, and nothing is known. */
  endFlush({ snapshot, start }: SnapshotCall, result: 'done' | 'failed'): void {
    snapshot.readers--;
    this.#ticks.next();
    if (result === 'done') snapshot.flushed(start);
  }
}
