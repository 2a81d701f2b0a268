/**
 * What the control channel of a volume answers: each method of the protocol, as a call of the volume.
 *
 * Whoever asks names snapshots by the ids of their stores; one that has gone meanwhile is not found.
 */
import type { ServedCheckOptions } from '../check/served.js';
import { allocationOf } from '../device/allocation.js';
import { BufferPool } from '../device/buffer-pool.js';
import { InUseError, InvalidArgumentError, NotFoundError } from '../errors.js';
import type { ScrubReport } from '../scrub/scrub.js';
import type { Problem } from '../snapshot/problem.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { createSnapshotSet } from '../volume/snapshot-set.js';
import type { ChangedBlocksOptions, Volume } from '../volume/volume.js';
import {
  type ChangedParams,
  type ChangeSnapshotParams,
  type CheckParams,
  EXTENTS_MAX,
  encodeExtents,
  type Greeting,
  type HoldParams,
  Method,
  type PolicyParams,
  type ReadParams,
  type RevertParams,
  type ScrubParams,
  type ServingState,
  type SnapshotParams,
  volumeState,
  type WriteParams,
} from './control-protocol.js';
import { type CreateParams, type CreateSetParams, creationOptions } from './creation-params.js';
import { idIn, numberIn, unlessAborted } from './params.js';
import { releaseWith } from './release.js';
import { type Call, type Reply, TRANSFER_MAX } from './rpc/server.js';

/** Buffers kept for the next reads, in bytes. */
const KEPT_BUFFERS = 32 * 1024 * 1024;

export interface ControlOptions {
  readonly volume: Volume;
  /** Of the volume's file or device. */
  readonly identity: string | undefined;
  readonly serving: () => ServingState;
  /** Volumes that the same process serves; snapshot sets may take them in. */
  readonly siblings?: () => readonly Volume[];
  /** Told of connections that cannot be taken. */
  readonly onError: (error: unknown) => void;
  /** Looks for damage while the volume is in use. */
  readonly check: (options: ServedCheckOptions) => Promise<readonly Problem[]>;
}

export class ControlAnswers {
  readonly #options: ControlOptions;
  /** For reads: new memory for each would cost as much as the copying. */
  readonly #buffers = new BufferPool(KEPT_BUFFERS);

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  /** @throws NotFoundError, InvalidArgumentError (the method too, if it is of another version), and whatever the volume throws */
  async answer(method: string, call: Call): Promise<Reply> {
    const { volume } = this.#options;
    switch (method) {
      case Method.hello:
        return this.#hello(call.params as Greeting);
      case Method.state:
        return this.#state();
      case Method.read:
        return this.#read(call.params as ReadParams);
      case Method.write:
        return this.#write(call);
      case Method.flush:
        await this.#target((call.params ?? {}) as SnapshotParams).flush();
        return {};
      case Method.copyRange:
        return this.#copyRange(call);
      case Method.setWritable:
        return this.#setWritable(call.params as SnapshotParams & { readonly writable: boolean });
      case Method.create:
        return this.#create(call);
      case Method.createSet:
        return this.#createSet(call);
      case Method.changeSnapshot: {
        const { storeId, ...change } = call.params as ChangeSnapshotParams;
        await this.#find(storeId).change(change);
        return this.#state();
      }
      case Method.deleteOldest:
        return this.#deleteOldest(call.params);
      case Method.delete:
        await this.#find(idIn(call.params)).delete();
        return this.#state();
      case Method.settled:
        return this.#settled(call);
      case Method.changed:
        return this.#changed(call);
      case Method.zeros:
        return this.#zeros(call.params as ReadParams);
      case Method.resize:
        await volume.setMaximumSize(numberIn(call.params, 'maximumSize'));
        return this.#state();
      case Method.revert:
        return this.#revert(call.params as RevertParams);
      case Method.reverted:
        return { value: { outcome: await unlessAborted(volume.reverting?.completed, call.signal) } };
      case Method.cancelRevert:
        if (volume.reverting === undefined)
          throw new NotFoundError(`${volume.name} is not being put back to a snapshot`);
        await volume.reverting.cancel();
        return this.#state();
      case Method.policy:
        return this.#setPolicy(call.params as PolicyParams);
      case Method.hold:
        return this.#hold(call.params as HoldParams);
      case Method.release:
        await this.#find((call.params as HoldParams).snapshot).release();
        return this.#state();
      case Method.grow:
        await volume.grow(numberIn(call.params, 'size'));
        return this.#state();
      case Method.check:
        return { value: await this.#check(call) };
      case Method.scrub:
        return { value: await this.#scrub(call) };
      default:
        throw new InvalidArgumentError(
          `the process that serves ${volume.name} does not know “${method}”: it is of another version`,
        );
    }
  }

  #hello({ identity }: Greeting = {}): Reply {
    const own = this.#options.identity;
    if (identity !== undefined && own !== undefined && identity !== own) {
      throw new InUseError(
        `the store belongs to ${this.#options.volume.name}, which process ${process.pid} serves: name that volume, or another store`,
      );
    }
    return this.#state();
  }

  #state(): Reply {
    return { value: volumeState(this.#options.volume, this.#options.serving()) };
  }

  async #read({ snapshot, offset, length }: ReadParams): Promise<Reply> {
    if (!Number.isSafeInteger(length) || length < 0 || length > TRANSFER_MAX)
      throw new InvalidArgumentError(`${length} bytes cannot be read at once, at most ${TRANSFER_MAX}`);
    const source = snapshot === undefined ? this.#options.volume : this.#find(snapshot);
    const buffer = this.#buffers.take(length);
    const bytes = buffer.subarray(0, length);
    try {
      await source.read(offset, bytes);
    } catch (error) {
      this.#buffers.give(buffer);
      throw error;
    }
    return { bytes, sent: () => this.#buffers.give(buffer) };
  }

  async #write({ params, bytes }: Call): Promise<Reply> {
    await this.#target(params as WriteParams).write(numberIn(params, 'offset'), bytes);
    return {};
  }

  async #copyRange({ params, signal, onProgress }: Call): Promise<Reply> {
    const [from, to, length] = ['from', 'to', 'length'].map((name) => numberIn(params, name));
    await this.#options.volume.copyRange(from ?? 0, to ?? 0, length ?? 0, { signal, onProgress });
    return {};
  }

  async #setWritable({
    snapshot = '',
    writable,
  }: SnapshotParams & { readonly writable: boolean }): Promise<Reply> {
    await this.#find(snapshot).setWritable(writable);
    return this.#state();
  }

  /** What is meant: a snapshot, or the volume. */
  #target({ snapshot }: SnapshotParams): Snapshot | Volume {
    return snapshot === undefined ? this.#options.volume : this.#find(snapshot);
  }

  async #create(call: Call): Promise<Reply> {
    const snapshot = await this.#options.volume.createSnapshot(
      creationOptions(call.params as CreateParams, call.bytes),
    );
    releaseWith(call, [snapshot], this.#options.onError);
    return { value: { storeId: snapshot.storeId, state: this.#state().value } };
  }

  async #createSet(call: Call): Promise<Reply> {
    const { volume, siblings = () => [] } = this.#options;
    const { others } = call.params as CreateSetParams;
    const volumes = [volume, ...others.map((id) => siblings().find((sibling) => sibling.id === id))].map(
      (each, i) => {
        if (each !== undefined) return each;
        throw new NotFoundError(
          `process ${process.pid}, which serves ${volume.name}, does not serve volume ${others[i - 1]} for writing; a set is taken by one process`,
        );
      },
    );
    const set = await createSnapshotSet(volumes, creationOptions(call.params as CreateParams, call.bytes));
    releaseWith(call, set.snapshots, this.#options.onError);
    const members = set.snapshots.map(({ storeId }, i) => ({ volumeId: volumes[i]?.id ?? '', storeId }));
    return { value: { setId: set.id, members, state: this.#state().value } };
  }

  /** A client that goes away leaves the revert as it is: it goes on. */
  async #revert({ snapshot, label, keepPrevious, holdTimeoutMs }: RevertParams): Promise<Reply> {
    await this.#options.volume.revert(this.#find(snapshot), {
      ...(label === undefined ? {} : { label }),
      ...(keepPrevious === undefined ? {} : { keepPrevious }),
      ...(holdTimeoutMs === undefined ? {} : { holdTimeoutMs }),
    }).begun;
    return this.#state();
  }

  /** Deletes what the client saw, or nothing: meanwhile others may have deleted the oldest. */
  async #deleteOldest(params: unknown): Promise<Reply> {
    const { volume } = this.#options;
    const ids = (params as { readonly ids: readonly string[] }).ids;
    const there = volume.snapshots.slice(0, ids.length).map(({ storeId }) => storeId);
    const missing = ids.find((id, i) => there[i] !== id);
    if (missing !== undefined) {
      throw new NotFoundError(
        `snapshot ${missing} of ${volume.name} has gone meanwhile; nothing was deleted`,
      );
    }
    await volume.deleteOldest(ids.length);
    return this.#state();
  }

  async #settled({ signal, onProgress }: Call): Promise<Reply> {
    await this.#options.volume.settled({ signal, onProgress });
    return this.#state();
  }

  /** One answer's worth of extents, and where the next one goes on. */
  async #changed({ params, signal }: Call): Promise<Reply> {
    const { since, until, compare, copiedOnly, offset, length } = params as ChangedParams;
    const options: ChangedBlocksOptions = {
      ...(since === undefined ? {} : { since: this.#find(since) }),
      ...(until === undefined ? {} : { until: this.#find(until) }),
      compare,
      ...(copiedOnly === undefined ? {} : { copiedOnly }),
      offset,
      ...(length === undefined ? {} : { length }),
      signal,
    };
    const extents = [];
    for await (const extent of this.#options.volume.changedBlocks(options)) {
      extents.push(extent);
      if (extents.length < EXTENTS_MAX) continue;
      return { value: { next: extent.offset + extent.length }, bytes: encodeExtents(extents) };
    }
    return { value: {}, bytes: encodeExtents(extents) };
  }

  async #zeros({ snapshot, offset, length }: ReadParams): Promise<Reply> {
    const source = snapshot === undefined ? this.#options.volume : this.#find(snapshot);
    const zeros = [];
    let at = offset;
    for await (const extent of allocationOf(source, offset, length)) {
      if (extent.zero) zeros.push({ offset: at, length: extent.length });
      at += extent.length;
      if (zeros.length === EXTENTS_MAX) return { value: { next: at }, bytes: encodeExtents(zeros) };
    }
    return { value: {}, bytes: encodeExtents(zeros) };
  }

  async #setPolicy({ policy, ...options }: PolicyParams): Promise<Reply> {
    await this.#options.volume.setSpacePolicy(policy, options);
    return this.#state();
  }

  async #hold({ snapshot, until }: HoldParams): Promise<Reply> {
    await this.#find(snapshot).hold(until === undefined ? {} : { until: new Date(until) });
    return this.#state();
  }

  async #check({ params, signal, onProgress }: Call): Promise<readonly Problem[]> {
    const { scrub, bytesPerSecond, repair } = params as CheckParams;
    return this.#options.check({ scrub, bytesPerSecond, repair, signal, onProgress });
  }

  /** It ends with the client that asked for it. */
  async #scrub({ params, signal, onProgress }: Call): Promise<ScrubReport> {
    const { bytesPerSecond, repair } = params as ScrubParams;
    return this.#options.volume.scrub({ bytesPerSecond, repair, signal, onProgress });
  }

  #find(storeId: string): Snapshot {
    const { volume } = this.#options;
    const found = volume.snapshots.find((snapshot) => snapshot.storeId === storeId);
    if (found === undefined) throw new NotFoundError(`${volume.name} has no snapshot ${storeId} any more`);
    return found;
  }
}
