/** The application information of snapshots that volsnap takes. */
import {
  type ApplicationInformation,
  informationOf,
  type SetCoordinator,
} from '../format/application-information.js';
import type { Guid } from '../format/guid.js';

/** VSS_VOLUME_SNAPSHOT_ATTRIBUTES, as far as they are used here. */
const Attribute = { persistent: 0x01, clientAccessible: 0x04, noAutoRelease: 0x08, noWriters: 0x10 } as const;
const SYSTEM_PROVIDER = 1;

export interface SnapshotDescription {
  readonly snapshotId: Guid;
  readonly setId: Guid;
  readonly label: string | undefined;
  readonly applicationInfo: Uint8Array | undefined;
  /** Default: true. */
  readonly persistent?: boolean;
  readonly autoRelease?: boolean;
  readonly hidden?: boolean;
  /** Did applications take part? */
  readonly hasWriters?: boolean;
  readonly coordinator?: SetCoordinator | undefined;
}

/** A snapshot with no option is what Windows calls VSS_CTX_CLIENT_ACCESSIBLE. */
export function describeSnapshot(description: SnapshotDescription): ApplicationInformation {
  const { persistent = true, autoRelease = false, hidden = false, hasWriters = false } = description;
  const attributes =
    (persistent ? Attribute.persistent : 0) |
    (hidden ? 0 : Attribute.clientAccessible) |
    (autoRelease ? 0 : Attribute.noAutoRelease) |
    (hasWriters ? 0 : Attribute.noWriters);
  return {
    ...informationOf(description.snapshotId, description.setId),
    context: attributes,
    provider: SYSTEM_PROVIDER,
    attributes,
    label: description.label,
    agentBytes: description.applicationInfo,
    coordinator: description.coordinator,
  };
}
