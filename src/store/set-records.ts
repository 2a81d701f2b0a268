/**
 * What a control file knows of snapshot sets: whether the commit record of one is here, or once was. The record is the
 * snapshot that was the coordinator's member; if that goes while other members may still ask for it, the start block
 * remembers its id.
 */
import { type DiffAreaItem, SnapshotState } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import { SET_RECORDS_MAX, type StartExtension } from '../format/start-block.js';

/** What is known of a set of snapshots whose commit record is asked for. */
export type SetOutcome = 'committed' | 'aborted' | 'unknown';

/** @param item of the snapshot that is the record, if that is there */
export function outcomeOf(
  recordId: Guid,
  item: DiffAreaItem | undefined,
  { setRecords = [], setRecordsLost = false }: StartExtension,
): SetOutcome {
  // A coordinator is never pending; one that claims to be is none of ours.
  if (item !== undefined) return (item.state & SnapshotState.setPending) === 0 ? 'committed' : 'unknown';
  if (setRecords.includes(recordId)) return 'committed';
  return setRecordsLost ? 'unknown' : 'aborted';
}

/** The same extension if the record is remembered already. */
export function remembering(recordId: Guid, extension: StartExtension): StartExtension {
  const { setRecords = [], setRecordsLost = false } = extension;
  if (setRecords.includes(recordId)) return extension;
  const all = [...setRecords, recordId];
  return {
    ...extension,
    setRecords: all.slice(-SET_RECORDS_MAX),
    setRecordsLost: setRecordsLost || all.length > SET_RECORDS_MAX,
  };
}
