/** Snapshots that go with the client that took them. */
import type { Snapshot } from '../snapshot/snapshot.js';
import type { Call } from './rpc/server.js';

/** Deletes what is to go with its owner when the connection ends. @param onError told of what cannot be deleted then */
export function releaseWith(
  call: Call,
  snapshots: readonly Snapshot[],
  onError: (error: unknown) => void,
): void {
  const release = async () => {
    for (const snapshot of snapshots) {
      if (!snapshot.autoRelease || snapshot.state === 'deleted') continue;
      try {
        await snapshot.delete();
      } catch (error) {
        onError(error);
      }
    }
  };
  if (snapshots.some(({ autoRelease }) => autoRelease)) call.onGone(() => void release());
}
