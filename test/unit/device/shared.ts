/** Memory that the thread which works on files sees. */
import { onTestFinished } from 'vitest';
import { SharedMemory } from '../../../src/device/shared-memory.js';

/** So many bytes of it, until the end of the test. */
export function shared(length: number): Uint8Array {
  const memory = SharedMemory.get();
  const part = memory?.take(length);
  if (memory === undefined || part === undefined) throw new Error(`no ${length} bytes of shared memory`);
  onTestFinished(() => memory.give(part));
  return part.subarray(0, length);
}
