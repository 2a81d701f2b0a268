/** Calls of users, and how they may end. */
import { AssertionError, type ErrorCode, VolsnapError } from '../../src/index.js';

/** Codes of the errors that a call may end in. */
export type Permitted = readonly ErrorCode[];

export const NO_ERROR: Permitted = [];
/** A snapshot may go at any moment. */
export const GONE: Permitted = ['SNAPSHOT_DELETED'];
/** Besides the others, while devices fail. */
export const DEVICE_FAILS: Permitted = ['DEVICE', 'NO_SPACE'];
/** Besides the others, where the store is known to be damaged. */
export const DAMAGED: Permitted = ['INTEGRITY', 'FORMAT', 'UNSUPPORTED'];

export class Calls {
  /** Errors that any call may end in for now, because of what is done to the devices. */
  tolerated: Permitted = NO_ERROR;
  /** What was wrong besides the answers to calls. */
  readonly complaints: string[] = [];

  async outcome(permitted: Permitted, call: () => Promise<unknown>): Promise<'done' | 'failed'> {
    return (await this.errorOf(permitted, call)) === undefined ? 'done' : 'failed';
  }

  /** Runs a call that may fail, but only in the ways that the documentation names. */
  async errorOf(permitted: Permitted, call: () => Promise<unknown>): Promise<VolsnapError | undefined> {
    try {
      await call();
      return undefined;
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw error;
      if (permitted.includes(error.code) || this.tolerated.includes(error.code)) return error;
      throw error;
    }
  }

  /** Something happened that only failing devices or rot can cause. Listeners must not throw, so it is only noted. */
  expectFault(what: string, cause: unknown): void {
    if (cause instanceof AssertionError) this.complaints.push(`${what}: ${cause}`);
    else if (this.tolerated.length === 0)
      this.complaints.push(`${what}, though nothing was done to the devices: ${cause}`);
  }
}
