/**
 * Time that moves only when the scheduler moves it.
 *
 * Kept in whole microseconds, so that sums are exact. Timers due at the same moment fire in the order they were set.
 * The wall clock is the monotonic one plus an offset that a test may change, also backwards.
 */
import type { Clock } from '../environment.js';

interface Timer {
  readonly due: number;
  readonly action: () => void;
}

/** 2026-01-01T00:00:00Z: where the wall clock of a simulation begins. */
const EPOCH_MILLISECONDS = 1_767_225_600_000;

export class SimulatedClock implements Clock {
  #microseconds = 0;
  #wallOffset = EPOCH_MILLISECONDS;
  /** Sorted by `due`, earliest last; of equal ones the first set is nearest the end. */
  readonly #timers: Timer[] = [];
  readonly #onTimer: () => void;

  /** @param onTimer called whenever a timer is set. */
  constructor(onTimer: () => void = () => undefined) {
    this.#onTimer = onTimer;
  }

  now(): number {
    return this.#wallOffset + Math.floor(this.#microseconds / 1000);
  }

  monotonic(): number {
    return this.#microseconds / 1000;
  }

  after(milliseconds: number, action: () => void): () => void {
    // Real timers also take odd values as "soon" instead of throwing.
    const wait = milliseconds > 0 ? Math.ceil(milliseconds * 1000) : 0;
    const timer: Timer = { due: this.#microseconds + wait, action };
    let index = this.#timers.length;
    while (index > 0 && (this.#timers[index - 1]?.due ?? Infinity) <= timer.due) index--;
    this.#timers.splice(index, 0, timer);
    this.#onTimer();
    return () => {
      const at = this.#timers.indexOf(timer);
      if (at >= 0) this.#timers.splice(at, 1);
    };
  }

  /** Simulated microseconds since the start. */
  get microseconds(): number {
    return this.#microseconds;
  }

  get timerCount(): number {
    return this.#timers.length;
  }

  advance(microseconds: number): void {
    this.#microseconds += microseconds;
  }

  /** Moves the wall clock, as an administrator or NTP would; a negative number sets it back. */
  adjustWallClock(milliseconds: number): void {
    this.#wallOffset += milliseconds;
  }

  /** Fires the earliest timer if it is due. */
  fireDue(): boolean {
    const next = this.#timers.at(-1);
    if (next === undefined || next.due > this.#microseconds) return false;
    this.#timers.pop();
    next.action();
    return true;
  }

  /** Goes to the moment of the earliest timer; false if there is none. */
  jump(): boolean {
    const next = this.#timers.at(-1);
    if (next === undefined) return false;
    this.#microseconds = Math.max(this.#microseconds, next.due);
    return true;
  }

  cancelAll(): void {
    this.#timers.length = 0;
  }
}
