import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import type { ForeignSnapshot } from '../../src/windows/foreign-snapshot.ts';
import { ForeignStore } from '../../src/windows/foreign-store.ts';
import { describeUnless } from './support/describe-unless.ts';
import { DESCRIPTION, IMAGE, whyNoImage } from './support/real-volume.ts';

const missing = whyNoImage();

describeUnless(missing, 'a volume of Windows', () => {
  const expected = missing === undefined ? JSON.parse(readFileSync(DESCRIPTION, 'utf8')) : undefined;
  let folder = '';
  let device: FileDevice;
  let store: ForeignStore;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'volsnap-windows-'));
    const raw = join(folder, 'windows-vss.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', IMAGE, raw]);
    device = await FileDevice.open(raw);
    store = await ForeignStore.open(device);
  });
  afterAll(async () => {
    await device?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test('is described as libvshadow describes it', () => {
    const { version, firstControlBlock, volumeId } = store.startBlock;
    expect({ version, firstControlBlock, volumeId }).toEqual(expected.startBlock);
    const described = store.snapshots.map((snapshot) => ({
      storeId: snapshot.storeId,
      snapshotId: snapshot.snapshotId,
      setId: snapshot.setId,
      createdAt: snapshot.createdAt.toISOString(),
      tableEntries: snapshot.entryCount,
    }));
    expect(described).toEqual(
      expected.snapshots.map(({ sha256: _, ...description }: { sha256: string }) => description),
    );
    expect(store.notes).toEqual([]);
  });

  test('says what vshadowinfo does not', () => {
    for (const snapshot of store.snapshots) {
      expect(snapshot.applicationInformation).toMatchObject({
        context: 9,
        provider: 1,
        attributes: 0x0042_0009,
        originatingMachine: 'infinity',
        serviceMachine: 'infinity',
      });
      const { state, reason, label, order, flags, size, volumeSize, allocatedBytes } = snapshot;
      expect({ state, reason, label, flags, size, volumeSize, allocatedBytes }).toEqual({
        state: 'ok',
        reason: undefined,
        label: undefined,
        flags: 0x40,
        size: expected.volumeSize,
        volumeSize: expected.volumeSize,
        allocatedBytes: 320 * 2 ** 20,
      });
      expect(order).toBe(store.snapshots.indexOf(snapshot) + 1);
      expect(snapshot.usedBytes).toBeGreaterThan(450 * 16_384);
      const changed = [...snapshot.tableBlocks()];
      expect(changed.length).toBeGreaterThan(450);
      expect(changed).toEqual([...new Set(changed)].sort((a, b) => a - b));
    }
  });

  test.each([0, 1])('snapshot %d reads as libvshadow reads it', async (index) => {
    const snapshot = store.snapshots[index];
    expect(snapshot && (await sha256Of(snapshot))).toBe(expected.snapshots[index].sha256);
  });
});

/** Reads in pieces that begin and end in the middle of blocks and sectors. */
async function sha256Of(snapshot: ForeignSnapshot): Promise<string> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(4 * 2 ** 20 + 1001);
  for (let at = 0; at < snapshot.size; at += buffer.byteLength) {
    const part = buffer.subarray(0, Math.min(buffer.byteLength, snapshot.size - at));
    await snapshot.readInto(at, part);
    hash.update(part);
  }
  return hash.digest('hex');
}
