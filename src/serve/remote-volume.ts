/**
 * A volume that another process serves, through its control channel: it looks like a volume of one's own.
 *
 * Snapshots and figures are as of the last answer that brought them; `refresh` asks for new ones.
 *
 * Shared state: what the last answer said; changed between awaits only.
 */
import { EventEmitter } from 'node:events';
import type { AllocationExtent } from '../device/allocation.js';
import { DeviceError } from '../errors.js';
import type { SpacePolicy } from '../format/start-block.js';
import type { ScrubOptions, ScrubReport } from '../scrub/scrub.js';
import type { CreateSnapshotOptions } from '../snapshot/create.js';
import type { VolumeEvents } from '../snapshot/events.js';
import type { SettledOptions } from '../snapshot/merging.js';
import type { SpacePolicyOptions } from '../snapshot/overflow.js';
import type { Problem } from '../snapshot/problem.js';
import type { RevertOperation, RevertOptions, RevertOutcome } from '../snapshot/revert-operation.js';
import type { Snapshot, SnapshotChange } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { VolumeAccess } from '../volume/access.js';
import type { ChangedExtent } from '../volume/changed-blocks.js';
import type { CopyRangeOptions } from '../volume/copy-range.js';
import { alignedExtents } from '../volume/extents.js';
import type { VolumeFigures } from '../volume/history.js';
import type { Recovery } from '../volume/open.js';
import type { ChangedBlocksOptions } from '../volume/volume.js';
import {
  type ChangedParams,
  type CheckParams,
  type CopyRangeParams,
  type Created,
  type CreatedSet,
  decodeExtents,
  type HoldParams,
  Method,
  type PolicyParams,
  type RevertParams,
  type ServingState,
  type VolumeState,
} from './control-protocol.js';
import { type CreateSetParams, createParams } from './creation-params.js';
import { RemoteContent } from './remote-content.js';
import { RemoteSnapshot } from './remote-snapshot.js';
import type { Answer, RequestOptions, RpcClient } from './rpc/client.js';
import { ClosingError } from './rpc/errors.js';

export interface RemoteCheckOptions extends ScrubOptions {
  readonly scrub?: boolean;
}

export class RemoteVolume extends EventEmitter<VolumeEvents> implements VolumeAccess {
  readonly #client: RpcClient;
  readonly #handles = new Map<string, RemoteSnapshot>();
  #state: VolumeState;
  #isUsed = false;
  /** Of the revert that ended last. */
  #outcome: RevertOutcome = 'reverted';
  #snapshots: readonly RemoteSnapshot[] = [];
  /** @internal */
  readonly content = new RemoteContent((method, params, options) => this.#request(method, params, options));

  /** As whoever connected calls it; where the other process runs, the same path may be another file. */
  readonly name: string;

  private constructor(client: RpcClient, name: string, state: VolumeState) {
    super();
    this.name = name;
    this.#client = client;
    this.#state = state;
    this.#take(state);
  }

  /** @internal Over a connection that has been greeted. Use `connectToOwner`. */
  static over(client: RpcClient, name: string, state: VolumeState): RemoteVolume {
    return new RemoteVolume(client, name, state);
  }

  /** @internal Something happened to the volume. */
  tell(told: unknown): void {
    const { name, event } = told as { readonly name: keyof VolumeEvents; readonly event: never };
    if (name === 'reverted') this.#outcome = (event as VolumeEvents['reverted'][0]).outcome;
    (this as EventEmitter).emit(name, event);
  }

  #take(state: VolumeState): void {
    this.#state = state;
    const gone = new Set(this.#handles.keys());
    this.#snapshots = state.snapshots.map((each) => {
      const handle = this.#handles.get(each.storeId) ?? new RemoteSnapshot(this, each);
      handle.take(each);
      this.#handles.set(each.storeId, handle);
      gone.delete(each.storeId);
      return handle;
    });
    for (const storeId of gone) {
      this.#handles.get(storeId)?.markDeleted();
      this.#handles.delete(storeId);
    }
  }

  get size(): ByteLength {
    return this.#state.size;
  }

  get writable(): boolean {
    return this.#state.writable;
  }

  get recovery(): Recovery {
    return this.#state.recovery;
  }

  get snapshots(): readonly Snapshot[] {
    return this.#snapshots;
  }

  get figures(): VolumeFigures {
    return this.#state.figures;
  }

  /** GUID of the volume, from its store. */
  get volumeId(): string | undefined {
    return this.#state.volumeId;
  }

  /** The process that serves the volume, and what it has done. */
  get serving(): ServingState {
    return this.#state.serving;
  }

  /** Asks for the snapshots and figures of this moment. */
  async refresh(signal?: AbortSignal): Promise<void> {
    const { value } = await this.#client.request(Method.state, undefined, { signal });
    this.#take(value as VolumeState);
  }

  allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    return this.content.zeros(undefined, this.size, offset, length);
  }

  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    return this.content.read(undefined, this.size, offset, target);
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    await this.content.write(undefined, this.size, offset, source);
  }

  async flush(): Promise<void> {
    await this.content.flush(undefined);
  }

  async copyRange(
    from: ByteOffset,
    to: ByteOffset,
    length: ByteLength,
    options: CopyRangeOptions = {},
  ): Promise<void> {
    const params: CopyRangeParams = { from, to, length };
    await this.#request(Method.copyRange, params, options);
  }

  /** @internal Of a snapshot by its store id. */
  async setWritable(snapshot: string, writable: boolean): Promise<void> {
    const { value } = await this.#request(Method.setWritable, { snapshot, writable });
    this.#take(value as VolumeState);
  }

  async createSnapshot(options: CreateSnapshotOptions = {}): Promise<Snapshot> {
    const { applicationInfo } = options;
    const params = createParams(options);
    const { value } = await this.#request(
      Method.create,
      params,
      applicationInfo === undefined ? {} : { bytes: applicationInfo },
    );
    const { storeId, state } = value as Created;
    this.#take(state);
    const taken = this.#handles.get(storeId);
    if (taken === undefined) throw new DeviceError(`snapshot ${storeId} was taken, and has gone already`);
    return taken;
  }

  /**
   * A snapshot set over this volume and others that the same process serves.
   * @param others GUIDs of those volumes
   * @returns the set's id and, for each volume, the snapshot's
   */
  async createSet(
    others: readonly string[],
    options: CreateSnapshotOptions = {},
  ): Promise<Pick<CreatedSet, 'setId' | 'members'>> {
    const { applicationInfo: bytes } = options;
    const params: CreateSetParams = { ...createParams(options), others };
    const { value } = await this.#request(Method.createSet, params, bytes === undefined ? {} : { bytes });
    const created = value as CreatedSet;
    this.#take(created.state);
    return created;
  }

  /** @internal */
  async changeSnapshot(storeId: string, change: SnapshotChange): Promise<void> {
    await this.#asked(Method.changeSnapshot, { storeId, ...change });
  }

  /** Deletes the `count` oldest of `snapshots`; nothing if others are the oldest meanwhile. */
  async deleteOldest(count = 1): Promise<void> {
    const ids = this.snapshots.slice(0, count).map(({ storeId }) => storeId);
    await this.#asked(Method.deleteOldest, { ids });
  }

  /** As `Volume.revert`; what was begun goes on when this connection ends. */
  revert(snapshot: Snapshot, options: RevertOptions = {}): RevertOperation {
    const { label, keepPrevious, holdTimeoutMs, onProgress, signal } = options;
    const params: RevertParams = { snapshot: snapshot.storeId, label, keepPrevious, holdTimeoutMs };
    const listener = ({ doneBytes, totalBytes }: VolumeEvents['revertProgress'][0]) =>
      onProgress?.(doneBytes, totalBytes);
    const cancel = () => begun.then(() => this.#cancelRevert());
    const onAbort = () => void cancel().catch(() => undefined);
    const begun = signal?.aborted ? Promise.reject(signal.reason) : this.#asked(Method.revert, params);
    this.on('revertProgress', listener);
    signal?.addEventListener('abort', onAbort, { once: true });
    const completed = begun
      .then(() => this.#reverted())
      .finally(() => {
        this.off('revertProgress', listener);
        signal?.removeEventListener('abort', onAbort);
      });
    completed.catch(() => undefined);
    return { begun, completed, cancel };
  }

  get reverting(): RevertOperation | undefined {
    if (this.figures.revert === undefined) return undefined;
    const completed = this.#reverted();
    completed.catch(() => undefined);
    return { begun: Promise.resolve(), completed, cancel: () => this.#cancelRevert() };
  }

  #cancelRevert(): Promise<void> {
    return this.#asked(Method.cancelRevert, undefined);
  }

  async #reverted(): Promise<RevertOutcome> {
    const { value } = await this.#request(Method.reverted);
    await this.refresh();
    return (value as { readonly outcome?: RevertOutcome }).outcome ?? this.#outcome;
  }

  /** @internal Deletes one snapshot. */
  async deleteOne(storeId: string): Promise<void> {
    await this.#asked(Method.delete, { id: storeId });
  }

  async settled(options: SettledOptions = {}): Promise<void> {
    const { signal, onProgress } = options;
    await this.#asked(Method.settled, undefined, { signal, onProgress });
  }

  changedBlocks(options: ChangedBlocksOptions): AsyncGenerator<ChangedExtent> {
    return alignedExtents(this.#changed(options), options.until ?? this, options.alignment);
  }

  async *#changed(options: ChangedBlocksOptions): AsyncGenerator<ChangedExtent> {
    const { since, until, compare = false, copiedOnly, offset = 0, length, signal } = options;
    const end = length === undefined ? undefined : offset + length;
    let held: ChangedExtent | undefined;
    for (let at: number | undefined = offset; at !== undefined; ) {
      const params: ChangedParams = {
        since: since?.storeId,
        until: until?.storeId,
        compare,
        copiedOnly,
        offset: at,
        length: end === undefined ? undefined : end - at,
      };
      const { value, bytes }: Answer = await this.#request(Method.changed, params, { signal });
      for (const extent of decodeExtents(bytes)) {
        // Where an answer ended, the next one may go on with the same extent.
        if (held !== undefined && held.offset + held.length === extent.offset) {
          held = { offset: held.offset, length: held.length + extent.length };
          continue;
        }
        if (held !== undefined) yield held;
        held = extent;
      }
      at = (value as { readonly next?: number }).next;
    }
    if (held !== undefined) yield held;
  }

  async setMaximumSize(maximumSize: ByteLength): Promise<void> {
    await this.#asked(Method.resize, { maximumSize });
  }

  async setSpacePolicy(policy: SpacePolicy, options: SpacePolicyOptions = {}): Promise<void> {
    await this.#asked(Method.policy, { ...options, policy } satisfies PolicyParams);
  }

  /** @internal Of a snapshot by its store id. @param until milliseconds since 1970 */
  async holdSnapshot(snapshot: string, until: number | undefined): Promise<void> {
    await this.#asked(Method.hold, { snapshot, until } satisfies HoldParams);
  }

  /** @internal The same. */
  async releaseSnapshot(snapshot: string): Promise<void> {
    await this.#asked(Method.release, { snapshot });
  }

  async grow(size: ByteLength): Promise<void> {
    await this.#asked(Method.grow, { size });
  }

  /** As `checkVolume`, while the volume is in use. */
  async check(options: RemoteCheckOptions = {}): Promise<Problem[]> {
    const { scrub = false, bytesPerSecond, repair, signal, onProgress } = options;
    const params: CheckParams = { scrub, bytesPerSecond, repair };
    const { value } = await this.#request(Method.check, params, { signal, onProgress });
    return value as Problem[];
  }

  /** As `Volume.scrub`; it ends with this connection. */
  async scrub({ signal, onProgress, ...params }: ScrubOptions = {}): Promise<ScrubReport> {
    const { value } = await this.#request(Method.scrub, params, { signal, onProgress });
    return value as ScrubReport;
  }

  /** Ends the connection. The volume stays open where it is. */
  async close(): Promise<void> {
    await this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Was it refused, because the owner closes the volume, before anything was asked or given? Then the caller may begin anew. */
  isRefused(error: unknown): boolean {
    return error instanceof ClosingError && !this.#isUsed;
  }

  /** Of methods that give `VolumeState`. */
  async #asked(method: string, params?: unknown, options: RequestOptions = {}): Promise<void> {
    const { value } = await this.#request(method, params, options);
    this.#take(value as VolumeState);
  }

  async #request(method: string, params?: unknown, options: RequestOptions = {}): Promise<Answer> {
    // What is sent along may be gone where it came from.
    if (options.bytes !== undefined) this.#isUsed = true;
    const answer = await this.#client.request(method, params, options);
    this.#isUsed = true;
    return answer;
  }
}
