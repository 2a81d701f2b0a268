/** Makes durable what was written to a snapshot itself. */
import type { Pools } from '../copy-on-write/pools.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { SnapshotRecord } from './record.js';

/**
 * Makes every write to the snapshot acknowledged before durable.
 * @param onBegin called when it begins, which is later: whoever flushes after that needs another one
 * @throws SnapshotDeletedError, DeviceError
 */
export async function flushOverlays(
  pools: Pools,
  record: SnapshotRecord,
  onBegin?: () => void,
): Promise<void> {
  const { area } = record;
  if (area === undefined || area.overlays.isEmpty) return onBegin?.();
  await pools.commit.add(async () => {
    onBegin?.();
    // Whoever holds `resizing` waits for devices only, so the commit pool may wait for it.
    await record.resizing.runExclusive(async () => {
      record.checkExists();
      await flushEntries(area);
    });
  });
}

/** Data and new entries first, then the header that vouches for the entries. */
async function flushEntries(area: DiffArea): Promise<void> {
  const entries = area.overlays.enter();
  if (entries.length > 0) {
    area.overlays.isProven = false;
    area.appendEntries(entries);
  }
  if (area.overlays.isProven) return area.flush();
  await area.flushProven();
  area.overlays.isProven = true;
}
