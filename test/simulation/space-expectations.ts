/** What the workload has said about room: policies and holds, and what follows from them. */
import type { SpacePolicy, Volume } from '../../src/index.js';
import { ModelMismatch } from '../../src/testing/index.js';

/** `undefined`: not known, because a call is under way, failed, or was cut off. */
type Known = { readonly until: number | undefined } | 'free' | undefined;

export class SpaceExpectations {
  readonly now: () => number;
  readonly #holds = new Map<string, Known>();
  #policy: SpacePolicy | undefined = 'delete-oldest';
  /** Calls under way that change the policy. */
  #changing = 0;
  /** Were there several at a time? */
  #isMixed = false;
  /** Calls under way on holds, and snapshots of which there were several at a time. */
  readonly #calls = new Map<string, number>();
  readonly #mixed = new Set<string>();
  /** Times that something began by which a write may fail. */
  #reasons = 0;

  constructor(now: () => number) {
    this.now = now;
  }

  /** What another one knows, of a world that is left to itself: calls under way there are cut off. */
  follow(other: SpaceExpectations): void {
    for (const [label, known] of other.#holds) this.#holds.set(label, known);
    this.#policy = other.#policy;
  }

  /** A write begins. @returns tells, when it has failed for lack of room, whether it was allowed to */
  watch(): () => boolean {
    const mayFail = this.mayFail;
    const before = this.#reasons;
    return () => mayFail || this.#reasons !== before;
  }

  /** May one that begins now? */
  get mayFail(): boolean {
    return this.#policy !== 'delete-oldest' || this.mayBeHeld;
  }

  /** May there be a snapshot that is held? */
  get mayBeHeld(): boolean {
    return [...this.#holds].some(([label, known]) => known === undefined || this.isHeld(label));
  }

  beginPolicy(policy: SpacePolicy, afterWait: SpacePolicy): void {
    this.#policy = undefined;
    this.#changing++;
    if (policy !== 'delete-oldest' || afterWait !== 'delete-oldest') this.#reasons++;
  }

  /** @param policy `undefined`: it failed */
  endPolicy(policy: SpacePolicy | undefined): void {
    this.#changing--;
    // Of several at a time nobody knows which was the last.
    this.#policy = this.#changing === 0 && !this.#isMixed ? policy : undefined;
    this.#isMixed = this.#changing > 0;
  }

  begin(label: string, isHold: boolean): void {
    this.#holds.set(label, undefined);
    this.#calls.set(label, (this.#calls.get(label) ?? 0) + 1);
    if (isHold) this.#reasons++;
  }

  end(label: string, known: Known): void {
    const others = (this.#calls.get(label) ?? 1) - 1;
    this.#calls.set(label, others);
    // The same here, until the next call that is alone.
    if (others === 0 && !this.#mixed.has(label)) this.#holds.set(label, known);
    if (others > 0) this.#mixed.add(label);
    else this.#mixed.delete(label);
  }

  /** It is gone. */
  forget(label: string): void {
    this.#holds.delete(label);
  }

  /** Is it held for certain? */
  isHeld(label: string): boolean {
    const known = this.#holds.get(label);
    return typeof known === 'object' && (known.until === undefined || this.now() < known.until);
  }

  /** After opening. Calls that a crash cut off are over. @throws ModelMismatch */
  verify(volume: Volume): void {
    this.#changing = 0;
    this.#isMixed = false;
    this.#calls.clear();
    this.#mixed.clear();
    const policy = volume.figures.space?.policy;
    if (this.#policy !== undefined && this.#policy !== policy)
      throw new ModelMismatch(`the policy was ${this.#policy}, now it is ${policy}`);
    this.#policy = policy;
    const there = new Map(volume.snapshots.map((snapshot) => [snapshot.label ?? '', snapshot]));
    for (const [label, known] of this.#holds) {
      const snapshot = there.get(label);
      if (snapshot === undefined) {
        if (this.isHeld(label)) throw new ModelMismatch(`${label} was held, and is gone`);
        this.#holds.delete(label);
        continue;
      }
      if (known === 'free' ? snapshot.held : this.isHeld(label) && !snapshot.held)
        throw new ModelMismatch(`${label} was ${known === 'free' ? 'released' : 'held'}, now it is not so`);
      this.#holds.set(label, snapshot.held ? { until: snapshot.heldUntil?.getTime() } : 'free');
    }
  }
}
