/** The application information of snapshots that volsnap takes. */
import { type ApplicationInformation, informationOf } from '../format/application-information.js';
import type { Guid } from '../format/guid.js';

// What Windows stores for a snapshot that any client may see and that stays: context and attributes of
// VSS_CTX_CLIENT_ACCESSIBLE (persistent, client accessible, no auto release, no writers), the system's provider.
const CLIENT_ACCESSIBLE = 0x1d;
const SYSTEM_PROVIDER = 1;

export interface SnapshotDescription {
  readonly snapshotId: Guid;
  readonly setId: Guid;
  readonly label: string | undefined;
  readonly applicationInfo: Uint8Array | undefined;
}

export const describeSnapshot = (description: SnapshotDescription): ApplicationInformation => ({
  ...informationOf(description.snapshotId, description.setId),
  context: CLIENT_ACCESSIBLE,
  provider: SYSTEM_PROVIDER,
  attributes: CLIENT_ACCESSIBLE,
  label: description.label,
  agentBytes: description.applicationInfo,
});
