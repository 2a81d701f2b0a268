/**
 * Files of late diff areas, open for one look: they take the place of the stand-ins, or are closed again and looked for anew. All of them
 * are there or none counts as there.
 */
import { allDone } from '../all-done.js';
import { DeviceError, NotFoundError } from '../errors.js';
import type { DiffAreaItem } from '../format/control-block.js';
import type { LateArea } from '../snapshot/late-area.js';
import type { AttachedStore, OpenedArea } from '../store/store.js';

/** A late diff area whose file is open. */
export interface LateFile extends LateArea {
  readonly item: DiffAreaItem;
  readonly opened: OpenedArea;
}

/**
 * Opens the files of all of them. What a device cannot read now it may read later.
 * @returns `undefined`, with none open, if one is not there @throws FormatError, UnsupportedError
 */
export async function openLateFiles(
  store: AttachedStore,
  waiting: readonly LateArea[],
): Promise<readonly LateFile[] | undefined> {
  const files: LateFile[] = [];
  for (const late of waiting) {
    // As it is now: an attempt to arrive may have made the file longer.
    const item = store.control.entries.find(({ diffArea }) => diffArea.storeId === late.record.id)?.diffArea;
    if (item === undefined) continue;
    const counted = late.space.handOver();
    try {
      files.push({ ...late, item, opened: await store.openArea(item, counted) });
    } catch (error) {
      late.space.takeBack(counted);
      await closeLateFiles(store, files);
      if (error instanceof NotFoundError || error instanceof DeviceError) return undefined;
      throw error;
    }
  }
  return files;
}

/** Closes them again. One whose snapshot has gone meanwhile is removed. @throws the first DeviceError, when all have been tried */
export async function closeLateFiles(store: AttachedStore, files: readonly LateFile[]): Promise<void> {
  const close = async ({ record, opened: { file }, space }: LateFile) => {
    space.takeBack(file.runs.size);
    await file.close();
    if (record.isGone) await store.removeArea(record.id);
  };
  await allDone(files.map(close));
}
