/** Changes of the store of which it must be known whether they are there. */
import { DeviceError } from '../errors.js';
import type { CreateContext } from './create.js';

/** Attempts to leave no doubt about what is on the device. */
const ATTEMPTS = 3;

/** Repeats `action` after a failure that leaves open what the device has; if it goes on failing, nothing may be written any more. */
export async function withoutDoubt(
  { gate, store }: Pick<CreateContext, 'gate' | 'store'>,
  action: () => Promise<void>,
  cause: unknown,
): Promise<void> {
  const errors = [cause];
  while (errors.length <= ATTEMPTS) {
    try {
      return await action();
    } catch (error) {
      errors.push(error);
    }
  }
  const message = `the store failed while a revert began or was cancelled, and which of both states it is in cannot be told; writes are refused. Close the volume, mend the store (${store.name}), and open again`;
  gate.shut(new DeviceError(message, { cause: new AggregateError(errors) }));
}

/** Once more, for a passing failure; the second one is the caller's. */
export async function twice(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch {
    await action();
  }
}
