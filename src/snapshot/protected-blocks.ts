/**
 * Keeps the volume's users from writing over a store that lies inside the volume, and over the stores of shadow copies that Windows made.
 *
 * The blocks become theirs only if the policy says so. Of a store of volsnap: then all snapshots go, as Windows does it, and what the write touches is left to the
 * volume, durably, before it is written. What the store cannot do without is never given up. Of Windows: all shadow copies go, if the base may go, through which they are read.
 *
 * Shared state: none of its own. Giving up is one step under `taking`, so that no snapshot is taken meanwhile.
 */
import type { Mutex } from 'async-mutex';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { WriteGate } from '../copy-on-write/write-gate.js';
import { isZeros } from '../device/zeros.js';
import { InvalidArgumentError, ReadOnlyError } from '../errors.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Elders } from './elders.js';
import type { Emit } from './events.js';

/** What a write over the store does: it fails, or all snapshots go. */
export type ProtectedWritePolicy = 'reject' | 'drop';

export interface ProtectedContext {
  readonly store: AttachedStore;
  readonly chain: SnapshotChain;
  readonly copyOnWrite: CopyOnWrite;
  readonly gate: WriteGate;
  /** Held while a snapshot is taken. */
  readonly taking: Mutex;
  readonly emit: Emit;
  readonly elders: Elders;
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
   * @throws the promise: ReadOnlyError, HeldError, RevertInProgressError; DeviceError, also if writes are refused anyway
   */
  admit(offset: ByteOffset, length: ByteLength): Promise<void> | undefined {
    const { store, elders } = this.#context;
    const isStore = store.inside?.storeWithin(offset, length) !== undefined;
    if (!isStore && !elders.areWithin(offset, length)) return undefined;
    return this.#meet(offset, length, isStore);
  }

  /** The same before a range is made zero: what lies in a store of volsnap reads as zeros anyway. */
  admitClearing(offset: ByteOffset, length: ByteLength): Promise<void> | undefined {
    return this.#context.elders.areWithin(offset, length) ? this.#meet(offset, length, false) : undefined;
  }

  /**
   * Must be asked before a range of a snapshot itself is written: the volume could not be put back to what lies where a store is. Zeros
   * may be written over that of volsnap, that is what is there. Whatever the policy, snapshots do not go for that. @throws ReadOnlyError
   */
  checkSnapshotWrite(offset: ByteOffset, source: Uint8Array): void {
    const length = source.byteLength;
    const { store, elders } = this.#context;
    const isStore = store.inside?.storeWithin(offset, length) !== undefined && !isZeros(source);
    if (isStore || elders.areWithin(offset, length))
      throw this.#refusal(offset, length, 'the volume could not be put back to this snapshot');
  }

  async #meet(offset: ByteOffset, length: ByteLength, isStore: boolean): Promise<void> {
    const { emit, gate, taking } = this.#context;
    try {
      if (isStore && this.#policy === 'reject')
        throw this.#refusal(offset, length, 'snapshots would be lost');
      await taking.runExclusive(async () => {
        // Nothing is given up for a write that will be refused, nor under a snapshot that may exist or not.
        if (gate.failure !== undefined) throw gate.failure;
        await this.#giveUpElders(offset, length);
        if (isStore) await this.#giveUp(offset, length);
      });
    } catch (error) {
      emit('protectedWrite', { offset, length, outcome: 'rejected' });
      throw error;
    }
    emit('protectedWrite', { offset, length, outcome: 'dropped' });
  }

  /** Whoever may not give the base up for room may not give up what is read through it either. */
  async #giveUpElders(offset: ByteOffset, length: ByteLength): Promise<void> {
    const { elders, chain } = this.#context;
    if (!elders.areWithin(offset, length)) return;
    const base = chain.oldest;
    if (base !== undefined && !chain.keeping.mayGo(base))
      throw this.#refusal(offset, length, 'shadow copies of Windows would be lost, which are kept');
    await elders.removeOldest(Infinity, 'store-overwritten');
  }

  async #giveUp(offset: ByteOffset, length: ByteLength): Promise<void> {
    const { store, chain, copyOnWrite } = this.#context;
    const met = store.inside?.storeWithin(offset, length);
    if (met === undefined) return; // Somebody else had it given up meanwhile.
    if (met === 'needed') throw this.#refusal(offset, length, 'there would be no store any more');
    // Again, because one that is being deleted may be merged and gone before its turn comes, and older ones are left then.
    for (let last = chain.newest; last !== undefined; last = chain.newest)
      await chain.removeThrough(last, copyOnWrite, 'store-overwritten');
    await chain.freed();
    await store.inside?.leave(offset, length);
  }

  #refusal(offset: ByteOffset, length: ByteLength, why: string): ReadOnlyError {
    return new ReadOnlyError(
      `a store of ${this.#context.store.name} lies within the ${length} bytes at ${offset}: ${why}`,
    );
  }
}
