/**
 * Decides what happens next, so that a whole run is a function of one seed.
 *
 * Every operation of the outside world is submitted here and stays pending. One step picks a pending operation at
 * random and either lets it take its effect or completes it; between its call and its completion others may do the
 * same, which is all the reordering that a device, or several, can show. After each completion every promise
 * reaction runs to its end before the next step is chosen, so code under test never races the scheduler.
 *
 * The barrier is `process.nextTick` called from a microtask. Node runs the tick queue only after the microtask queue
 * is empty, including the microtasks added meanwhile (`processTicksAndRejections`), and touches no operating
 * system facility in between: 0.2 microseconds, where `setImmediate` takes 0.6. Code under test must therefore wait
 * only on promises, `queueMicrotask` and simulated operations. Real timers, threads and sockets are outside; they
 * get a turn now and then so that nothing starves, but a run that depends on them is no longer a function of its seed.
 */
import { assert } from '../errors.js';
import {
  describeOperation,
  type OperationLabel,
  type OperationRequest,
  type Pending,
  PendingOperation,
} from './operation.js';
import { hashString, type SeededRandom } from './seeded-random.js';
import { SimulatedClock } from './simulated-clock.js';

/** How a run of a limited number of steps ended. */
export type Outcome<T> = { readonly finished: true; readonly value: T } | { readonly finished: false };

export interface SchedulerOptions {
  /** Steps after which a run is given up as endless. Default 10 million. */
  readonly stepsMax?: number;
  /** Simulated time that one completed operation takes: anything up to this. Default 500. */
  readonly latencyMicrosecondsMax?: number;
  /** Share of operations that are held back for a while, so that many others overtake them. Default 1 in 64. */
  readonly stragglers?: number;
  /** Is told of every event, in order: to print a run. */
  readonly observe?: (event: string, operation: OperationLabel) => void;
}

/** No step is possible, and yet the task is not done. */
export class DeadlockError extends Error {
  override readonly name = 'DeadlockError';
}

interface Session {
  /** Steps, of all, after which it ends. */
  stopAt: number;
  readonly isSettled: () => boolean;
  readonly end: () => void;
  readonly fail: (error: unknown) => void;
  /** Real asynchrony was given its last chance since the last step. */
  graced: boolean;
  /** Between which steps something else comes in. */
  readonly interruptions: { readonly at: number; readonly action: () => Promise<void> }[];
}

/** Steps between two turns of the real event loop. */
const STEPS_PER_BREATH = 4096;
const HISTORY = 16;
const SETTLED = Promise.resolve();
const STRAGGLE_MICROSECONDS_MAX = 50_000;

export class Scheduler {
  readonly clock: SimulatedClock;
  readonly #random: SeededRandom;
  readonly #options: Required<Omit<SchedulerOptions, 'observe'>> & Pick<SchedulerOptions, 'observe'>;
  readonly #hashes = new Map<string, number>();
  readonly #recent: OperationLabel[] = [];
  #pending: Pending[] = [];
  #never: OperationLabel[] = [];
  #pauses: { readonly at: number; readonly resume: () => void }[] = [];
  #session: Session | undefined;
  #autorun = false;
  #steps = 0;
  #completed = 0;
  #generation = 0;
  #hash = 0x811c9dc5;

  constructor(random: SeededRandom, options: SchedulerOptions = {}) {
    this.#random = random.fork('scheduler');
    this.#options = { stepsMax: 10_000_000, latencyMicrosecondsMax: 500, stragglers: 1 / 64, ...options };
    this.clock = new SimulatedClock(() => this.#wake());
  }

  /** Grows with every crash. Whoever took a handle in an earlier generation is dead: nothing it asks for happens. */
  get generation(): number {
    return this.#generation;
  }

  get steps(): number {
    return this.#steps;
  }

  get completed(): number {
    return this.#completed;
  }

  /** Operations that are neither completed nor held back. */
  get pendingCount(): number {
    return this.#pending.length;
  }

  /** Hash of everything that happened so far, in order: equal for equal seeds, or the run is not deterministic. */
  get traceHash(): number {
    return this.#hash >>> 0;
  }

  submit<T>(request: OperationRequest<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const operation = new PendingOperation(request, resolve, reject);
      let delay = request.delayMicroseconds ?? 0;
      if (this.#random.chance(this.#options.stragglers))
        delay += this.#random.below(STRAGGLE_MICROSECONDS_MAX);
      if (delay === 0) {
        this.#pending.push(operation);
        this.#wake();
      } else if (delay === Infinity) this.#never.push(request);
      else this.clock.after(delay / 1000, () => void this.#pending.push(operation));
    });
  }

  /** Runs `task` to its end, and everything it waits for. @throws DeadlockError */
  async run<T>(task: () => Promise<T>): Promise<T> {
    const outcome = await this.runSteps(task, Infinity);
    assert(outcome.finished, () => 'a run without a limit stopped early');
    return outcome.value;
  }

  /** Runs `task` for at most so many steps; then it stays where it is, to be abandoned by `crash`. */
  async runSteps<T>(task: () => Promise<T>, steps: number): Promise<Outcome<T>> {
    assert(this.#session === undefined, () => 'the scheduler runs a task already');
    return new Promise<Outcome<T>>((resolve, reject) => {
      let settle: (() => void) | undefined;
      const finish = (action: () => void) => {
        this.#session = undefined;
        action();
      };
      this.#session = {
        stopAt: this.#steps + steps,
        isSettled: () => settle !== undefined,
        end: () => finish(settle ?? (() => resolve({ finished: false }))),
        fail: (error) => finish(() => reject(error)),
        graced: false,
        interruptions: [],
      };
      (async () => task())().then(
        (value) => {
          settle = () => resolve({ finished: true, value });
        },
        (error: unknown) => {
          settle = () => reject(error);
        },
      );
      this.#arm();
    });
  }

  /**
   * From now on operations complete by themselves, without `run`: for tests that only want some device. A timer that
   * is set again and again keeps such a scheduler busy for ever.
   */
  autorun(): this {
    this.#autorun = true;
    this.#wake();
    return this;
  }

  /** For the task itself: waits until so many more steps were made, or until none is possible. */
  pause(steps: number): Promise<void> {
    return new Promise((resume) => {
      this.#pauses.push({ at: this.#steps + steps, resume });
    });
  }

  /** For the task itself: a run of a limited number of steps ends so many steps from now, if not before. */
  stopWithin(steps: number): void {
    const session = this.#session;
    if (session === undefined || session.stopAt === Infinity) return;
    session.stopAt = Math.min(session.stopAt, this.#steps + steps);
  }

  /**
   * For the task itself: so many steps from now, if the run is not over by then, no step is made until `action` has ended.
   * It happens outside of this world: nothing in it changes, nor does what happens next.
   */
  interruptAfter(steps: number, action: () => Promise<void>): void {
    this.#session?.interruptions.push({ at: this.#steps + steps, action });
  }

  /** Nothing that is pending, and no timer, will ever happen. The task that calls this goes on. */
  crash(): void {
    this.#generation++;
    this.#pending = [];
    this.#never = [];
    this.#pauses = [];
    this.clock.cancelAll();
    this.trace('crash', { kind: 'crash', target: '', offset: 0, length: 0 });
  }

  /** Enters an event into the trace and its hash. */
  trace(event: string, label: OperationLabel): void {
    this.#mix(this.#hashOf(event));
    this.#mix(this.#hashOf(label.kind));
    this.#mix(this.#hashOf(label.target));
    this.#mix(label.offset % 2 ** 32);
    this.#mix(label.offset / 2 ** 32);
    this.#mix(label.length);
    this.#options.observe?.(event, label);
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193);
    this.#hash ^= this.#hash >>> 15;
  }

  #hashOf(text: string): number {
    let hash = this.#hashes.get(text);
    if (hash === undefined) {
      hash = hashString(text);
      this.#hashes.set(text, hash);
    }
    return hash;
  }

  #arm(): void {
    // From a microtask: were this called from the tick itself, the next tick would come before the microtasks.
    if (this.#steps % STEPS_PER_BREATH === STEPS_PER_BREATH - 1) setImmediate(this.#turn);
    // Not `queueMicrotask`, which makes an asynchronous resource of each.
    else void SETTLED.then(this.#armTick);
  }

  readonly #armTick = (): void => process.nextTick(this.#turn);

  readonly #turn = (): void => {
    const session = this.#session;
    if (session === undefined) return;
    try {
      switch (this.#proceed(session)) {
        case 'settled':
          this.#arm();
          break;
        case 'end':
          session.end();
          break;
        case 'interrupted':
          this.#interrupt(session);
          break;
        case 'none':
          this.#stuck(session);
      }
    } catch (error) {
      session.fail(error);
    }
  };

  /** Steps until promises were settled, whose reactions must run before the next step, or until it is over. */
  #proceed(session: Session): 'settled' | 'none' | 'end' | 'interrupted' {
    for (;;) {
      if (session.isSettled() || this.#steps >= session.stopAt) return 'end';
      if (session.interruptions.some(({ at }) => at <= this.#steps)) return 'interrupted';
      if (this.#resumePauses(this.#steps)) return 'settled';
      const step = this.#step();
      if (step === 'none') return 'none';
      session.graced = false;
      this.#steps++;
      if (this.#steps >= this.#options.stepsMax) throw new DeadlockError(this.#explain('endless'));
      if (step === 'settled') return 'settled';
    }
  }

  #interrupt(session: Session): void {
    const { interruptions } = session;
    const index = interruptions.findIndex(({ at }) => at <= this.#steps);
    const [next] = interruptions.splice(index, 1);
    const action = next?.action ?? (async () => undefined);
    action().then(() => this.#arm(), session.fail);
  }

  #step(): 'settled' | 'effect' | 'none' {
    if (this.clock.fireDue()) {
      this.#mix(this.clock.microseconds);
      return 'settled';
    }
    const index = this.#pending.length === 0 ? -1 : this.#random.below(this.#pending.length);
    const operation = this.#pending[index];
    if (operation === undefined) return this.clock.jump() ? 'effect' : 'none';
    if (!operation.hasEffect) {
      operation.takeEffect();
      this.trace('effect', operation.label);
      // Half of them complete in the same step: the state between is worth visiting, but not always.
      if (this.#random.chance(0.5)) return 'effect';
    }
    const last = this.#pending.pop();
    if (last !== undefined && last !== operation) this.#pending[index] = last;
    this.clock.advance(this.#random.below(this.#options.latencyMicrosecondsMax) + 1);
    this.#recent[this.#completed++ % HISTORY] = operation.label;
    this.trace('done', operation.label);
    operation.complete();
    return 'settled';
  }

  #resumePauses(step: number): boolean {
    if (this.#pauses.length === 0) return false;
    const due = this.#pauses.filter((pause) => pause.at <= step);
    if (due.length === 0) return false;
    this.#pauses = this.#pauses.filter((pause) => pause.at > step);
    for (const pause of due) pause.resume();
    return true;
  }

  #stuck(session: Session): void {
    if (this.#resumePauses(Infinity)) {
      this.#arm();
      return;
    }
    if (this.#autorun) {
      session.end();
      return;
    }
    if (session.graced) throw new DeadlockError(this.#explain('deadlock'));
    session.graced = true;
    setImmediate(this.#turn);
  }

  #wake(): void {
    if (!this.#autorun || this.#session !== undefined) return;
    this.#session = {
      stopAt: Infinity,
      isSettled: () => false,
      end: () => {
        this.#session = undefined;
      },
      fail: (error) => {
        throw error;
      },
      graced: true,
      interruptions: [],
    };
    this.#arm();
  }

  #explain(what: 'deadlock' | 'endless'): string {
    const list = (labels: readonly OperationLabel[]) => labels.map(describeOperation).join(', ') || 'none';
    const oldest = this.#completed % HISTORY;
    const recent = [...this.#recent.slice(oldest), ...this.#recent.slice(0, oldest)];
    return [
      what === 'deadlock'
        ? 'deadlock: the task waits for something that no pending operation or timer will bring'
        : `the task is not done after ${this.#options.stepsMax} steps`,
      `seed ${this.#random.seed}, ${this.#steps} steps, ${this.clock.monotonic()} ms of simulated time`,
      `pending: ${list(this.#pending.map((operation) => operation.label))}; timers: ${this.clock.timerCount}`,
      `never completing: ${list(this.#never)}`,
      `last completed: ${list(recent)}`,
    ].join('\n  ');
  }
}
