/** What a snapshot is taken for, and with which others. */
import type { DiffArea } from '../diff-area/diff-area.js';
import type { SetCoordinator } from '../format/application-information.js';
import type { SnapshotItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import type { SnapshotRecord } from './record.js';

/** What a snapshot shares with the others of its set. */
export interface SetMembership {
  readonly setId: Guid;
  /** Where the commit record of the set is; `undefined`: there is only one member. */
  readonly coordinator: SetCoordinator | undefined;
  readonly hasWriters: boolean;
}

/** What else a snapshot is taken for. Both steps are done with writes held; what they throw, the creation throws. */
export interface SnapshotPurpose {
  /** `SnapshotState`s. */
  readonly state: number;
  /** What it is younger than, where the store has no snapshot yet. */
  readonly after?: Pick<SnapshotItem, 'order' | 'createdAt'> | undefined;
  /** Before the snapshot exists. */
  prepare(area: DiffArea): Promise<void>;
  /** Once it does; it stays even if this fails. */
  begin(record: SnapshotRecord): Promise<void>;
}
