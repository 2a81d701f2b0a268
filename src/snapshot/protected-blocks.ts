/**
 * Keeps the volume's users from writing over a store that lies inside the volume.
 *
 * The blocks become theirs only if the policy says so: then all snapshots go, as Windows does it, and what the write touches is left to the
 * volume, durably, before it is written. What the store cannot do without is never given up.
 *
 * Shared state: none of its own. Giving up is one step under `taking`, so that no snapshot is taken meanwhile.
 */
import type { Mutex } from 'async-mutex';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import { isZeros } from '../device/zeros.js';
import { InvalidArgumentError, ReadOnlyError } from '../errors.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';

/** What a write over the store does: it fails, or all snapshots go. */
export type ProtectedWritePolicy = 'reject' | 'drop';

export interface ProtectedContext {
  readonly store: AttachedStore;
  readonly chain: SnapshotChain;
  readonly copyOnWrite: CopyOnWrite;
  /** Held while a snapshot is taken. */
  readonly taking: Mutex;
  readonly emit: Emit;
}

export class ProtectedBlocks {
  readonly #context: ProtectedContext;
  readonly #policy: ProtectedWritePolicy;

  /** @throws InvalidArgumentError */
  constructor(context: ProtectedContext, policy: ProtectedWritePolicy) {
    if (policy !== 'reject' && policy !== 'drop')
      throw new InvalidArgumentError(`onProtectedWrite must be reject or drop, got ${String(policy)}`);
    this.#context = context;
    this.#policy = policy;
  }

  /**
   * Must be asked before a range of the volume is written.
   * @returns `undefined`: it may be; else a promise that resolves when it may be
   * @throws the promise: ReadOnlyError, HeldError, RevertInProgressError; DeviceError
   */
  admit(offset: ByteOffset, length: ByteLength): Promise<void> | undefined {
    if (this.#context.store.inside?.storeWithin(offset, length) === undefined) return undefined;
    return this.#meet(offset, length);
  }

  /**
   * Must be asked before a range of a snapshot itself is written: the volume could not be put back to what lies where the store is. Zeros
   * may be written, that is what is there. Whatever the policy, snapshots do not go for that. @throws ReadOnlyError
   */
  checkSnapshotWrite(offset: ByteOffset, source: Uint8Array): void {
    const length = source.byteLength;
    if (this.#context.store.inside?.storeWithin(offset, length) === undefined || isZeros(source)) return;
    throw this.#refusal(offset, length, 'the volume could not be put back to this snapshot');
  }

  async #meet(offset: ByteOffset, length: ByteLength): Promise<void> {
    const { emit, taking } = this.#context;
    try {
      if (this.#policy === 'reject') throw this.#refusal(offset, length, 'snapshots would be lost');
      await taking.runExclusive(() => this.#giveUp(offset, length));
    } catch (error) {
      emit('protectedWrite', { offset, length, outcome: 'rejected' });
      throw error;
    }
    emit('protectedWrite', { offset, length, outcome: 'dropped' });
  }

  async #giveUp(offset: ByteOffset, length: ByteLength): Promise<void> {
    const { store, chain, copyOnWrite } = this.#context;
    const met = store.inside?.storeWithin(offset, length);
    if (met === undefined) return; // Somebody else had it given up meanwhile.
    if (met === 'needed') throw this.#refusal(offset, length, 'there would be no store any more');
    const { newest } = chain;
    if (newest !== undefined) await chain.removeThrough(newest, copyOnWrite, 'store-overwritten');
    if (chain.newest !== undefined) throw this.#refusal(offset, length, 'a snapshot is held');
    await chain.freed();
    await store.inside?.leave(offset, length);
  }

  #refusal(offset: ByteOffset, length: ByteLength, why: string): ReadOnlyError {
    return new ReadOnlyError(
      `the store of ${this.#context.store.name} lies within the ${length} bytes at ${offset}: ${why}`,
    );
  }
}
