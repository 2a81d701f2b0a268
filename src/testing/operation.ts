/**
 * One operation of the simulated outside world, between its call and its completion.
 */
import { AssertionError } from '../errors.js';

/** What an operation is, for traces and messages. */
export interface OperationLabel {
  readonly kind: string;
  readonly target: string;
  readonly offset: number;
  readonly length: number;
}

export interface OperationRequest<T> extends OperationLabel {
  /** What it does; runs once, between call and completion. What it throws becomes the rejection. */
  effect(): T;
  /** Runs just before the promise settles, after success and failure alike. What it throws becomes the rejection. */
  settle?(): void;
  /** Wait before it is even considered. `Infinity`: it never completes. */
  readonly delayMicroseconds?: number;
}

/** An operation as the scheduler sees it. */
export interface Pending {
  readonly label: OperationLabel;
  hasEffect: boolean;
  takeEffect(): void;
  complete(): void;
}

export const describeOperation = (label: OperationLabel): string =>
  `${label.kind} ${label.target} ${label.offset}+${label.length}`;

/** A promise that never settles: what code of an earlier generation gets. */
export const never = <T>(): Promise<T> => new Promise<T>(() => undefined);

export class PendingOperation<T> implements Pending {
  hasEffect = false;
  #result: { readonly value: T } | undefined;
  #error: unknown;

  constructor(
    readonly label: OperationRequest<T>,
    readonly resolve: (value: T) => void,
    readonly reject: (error: unknown) => void,
  ) {}

  takeEffect(): void {
    this.hasEffect = true;
    try {
      this.#result = { value: this.label.effect() };
    } catch (error) {
      this.#error = error;
    }
  }

  complete(): void {
    try {
      this.label.settle?.();
    } catch (error) {
      this.#result = undefined;
      // The first broken rule is the one to report.
      if (!(this.#error instanceof AssertionError)) this.#error = error;
    }
    if (this.#result !== undefined) this.resolve(this.#result.value);
    else this.reject(this.#error);
  }
}
