/**
 * What goes wrong with simulated devices, and when: scripted, or drawn from the seed.
 *
 * A rule names operations and what befalls them. It is consulted once for each operation, when it is submitted;
 * of several that match the first wins. Counters tell afterwards what really was injected.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import type { SeededRandom } from './seeded-random.js';

export type DiskOperation = 'read' | 'write' | 'discard' | 'flush' | 'resize';
export type FolderOperation = 'list' | 'create' | 'open' | 'remove' | 'sync';
export type FaultableOperation = DiskOperation | FolderOperation;

/**
 * - an error code: the operation fails; a write leaves some of its sectors written, a flush makes some durable
 * - `ignore`: it reports success and does nothing (a lying device; outside what the engine promises to survive)
 * - `rot`: one bit within its range flips before it takes effect (with a flush, anywhere on the disk)
 * - `delay`: it takes longer; for ever, with `Infinity`
 */
export type FaultEffect = 'EIO' | 'ENOSPC' | 'ENODEV' | 'ignore' | 'rot' | 'delay';

export interface FaultRule {
  readonly operation: FaultableOperation | readonly FaultableOperation[];
  readonly effect: FaultEffect;
  /** Only on this disk or folder. */
  readonly target?: string;
  /** Only operations that touch bytes from here on... */
  readonly from?: ByteOffset;
  /** ...and before here. */
  readonly to?: ByteOffset;
  /** Probability for each operation that matches. Default 1. */
  readonly chance?: number;
  /** So many matching operations pass first. Default 0. */
  readonly skip?: number;
  /** Strikes so many times. Default 1; `Infinity`: persistent. */
  readonly times?: number;
  /** Where it struck, every later one of its kind fails as well; a bad read until the range is written again. */
  readonly sticky?: boolean;
  /** How long a `delay` is. Default 1000. */
  readonly milliseconds?: number;
}

/** What befalls one operation. */
export interface Fault {
  readonly effect: FaultEffect;
  readonly delayMicroseconds: number;
}

interface ActiveRule {
  readonly rule: FaultRule;
  readonly operations: readonly FaultableOperation[];
  skip: number;
  times: number;
}

interface BadRange {
  readonly operation: FaultableOperation;
  readonly target: string;
  readonly from: ByteOffset;
  readonly to: ByteOffset;
  readonly fault: Fault;
}

export class FaultPlan {
  readonly #random: SeededRandom;
  #rules: ActiveRule[] = [];
  #bad: BadRange[] = [];
  readonly #counters = new Map<string, number>();

  constructor(random: SeededRandom, rules: readonly FaultRule[] = []) {
    this.#random = random.fork('faults');
    this.add(...rules);
  }

  add(...rules: readonly FaultRule[]): this {
    for (const rule of rules) {
      const operations = typeof rule.operation === 'string' ? [rule.operation] : rule.operation;
      this.#rules.push({ rule, operations, skip: rule.skip ?? 0, times: rule.times ?? 1 });
    }
    return this;
  }

  /** Ends all faults, sticky ones too, so that a run can show that it recovers. */
  clear(): void {
    this.#rules = [];
    this.#bad = [];
  }

  /** Draws a few rules of all kinds that the engine must survive. @param rate share of operations that fail */
  draw(rate: number): this {
    const random = this.#random;
    const some = (probability: number, ...rules: readonly FaultRule[]) => {
      if (random.chance(probability)) this.add(...rules);
    };
    some(0.5, { operation: 'read', effect: 'EIO', chance: rate, times: Infinity });
    some(0.3, { operation: 'read', effect: 'EIO', chance: rate / 4, times: 2, sticky: true });
    some(0.5, { operation: ['write', 'discard'], effect: 'EIO', chance: rate, times: Infinity });
    some(0.3, { operation: 'write', effect: 'EIO', chance: rate / 4, times: 1, sticky: true });
    some(0.3, { operation: ['write', 'resize', 'create'], effect: 'ENOSPC', chance: rate, times: Infinity });
    some(0.3, { operation: ['flush', 'sync'], effect: 'EIO', chance: rate, times: 1 + random.below(2) });
    some(0.3, {
      operation: ['list', 'create', 'open', 'remove'],
      effect: 'EIO',
      chance: rate,
      times: Infinity,
    });
    some(0.5, {
      operation: ['read', 'write', 'flush'],
      effect: 'delay',
      chance: rate,
      times: Infinity,
      milliseconds: 1 + random.below(20_000),
    });
    return this;
  }

  /** What befalls this operation, if anything. */
  strike(
    operation: FaultableOperation,
    target: string,
    offset: ByteOffset,
    length: ByteLength,
  ): Fault | undefined {
    for (const bad of this.#bad) {
      const isHit = bad.operation === operation && bad.target === target;
      if (isHit && bad.from < offset + length && offset < bad.to) return this.#count(operation, bad.fault);
    }
    for (const active of this.#rules) {
      const { rule } = active;
      if (active.times <= 0 || !active.operations.includes(operation)) continue;
      if (rule.target !== undefined && rule.target !== target) continue;
      if ((rule.from ?? 0) >= offset + length && length > 0) continue;
      if (offset >= (rule.to ?? Infinity)) continue;
      if (!this.#random.chance(rule.chance ?? 1)) continue;
      if (active.skip > 0) {
        active.skip--;
        continue;
      }
      active.times--;
      const isDelay = rule.effect === 'delay';
      const fault: Fault = {
        effect: rule.effect,
        delayMicroseconds: isDelay ? (rule.milliseconds ?? 1000) * 1000 : 0,
      };
      if (rule.sticky) this.#bad.push({ operation, target, from: offset, to: offset + length, fault });
      return this.#count(operation, fault);
    }
    return undefined;
  }

  /** The range was written: sectors that could not be read are replaced by the drive. */
  rewritten(target: string, offset: ByteOffset, length: ByteLength): void {
    if (this.#bad.length === 0) return;
    const isCured = (bad: BadRange) =>
      bad.operation === 'read' && bad.target === target && offset <= bad.from && bad.to <= offset + length;
    this.#bad = this.#bad.filter((bad) => !isCured(bad));
  }

  /** How often what was injected, as `EIO write`. */
  get counters(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counters);
  }

  #count(operation: FaultableOperation, fault: Fault): Fault {
    const key = `${fault.effect} ${operation}`;
    this.#counters.set(key, (this.#counters.get(key) ?? 0) + 1);
    return fault;
  }
}
