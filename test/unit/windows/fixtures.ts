/** Small volumes with shadow copies, opened in memory. */
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { viewOf } from '../../../src/format/binary.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { ForeignStore } from '../../../src/windows/foreign-store.ts';
import {
  buildWindowsImage,
  copy,
  type ImagePlan,
  type SnapshotPlan,
  stampOf,
  type WindowsImage,
} from '../../interop/support/windows-image.ts';

export const T = 130_305_261_097_363_787n;
export const SIZE = 80 * BLOCK_SIZE;
/** Snapshots 1 (oldest) to 3; each has a copy of block 1, and of its own block 10 + number. */
export const PLAN: ImagePlan = {
  size: SIZE,
  metadataFrom: 40,
  snapshots: [1, 2, 3].map((number) => ({
    number,
    createdAt: T + BigInt(number),
    tables: [[copy(1, 20 + number), copy(10 + number, 30 + number)]],
    unused: [5],
  })),
};
export const withSnapshots = (...snapshots: Partial<SnapshotPlan>[]): ImagePlan => ({
  ...PLAN,
  snapshots: snapshots.map((snapshot, index) => ({
    number: index + 1,
    createdAt: T + BigInt(index),
    tables: [],
    ...snapshot,
  })),
});
export const open = (image: Uint8Array | WindowsImage | ImagePlan): Promise<ForeignStore> =>
  ForeignStore.open(
    new MemoryDevice(
      image instanceof Uint8Array ? image : 'bytes' in image ? image.bytes : buildWindowsImage(image).bytes,
    ),
  );
/** The image with some bytes changed; `at` says where a block of it lies, in bytes. */
export function changed(
  change: (view: DataView, at: (kind: string) => number) => void,
  plan = PLAN,
): Uint8Array {
  const { bytes, at } = buildWindowsImage(plan);
  change(viewOf(bytes), (kind) => (at.get(kind) ?? Number.NaN) * BLOCK_SIZE);
  return bytes;
}
export const put = (view: DataView, at: number, value: number | bigint) =>
  view.setBigUint64(at, BigInt(value), true);
/** Which block the snapshot shows at `block`: by the stamp of its first sector. */
export async function shown(store: ForeignStore, age: number, block: number): Promise<number | 'zeros'> {
  const bytes = await store.snapshots[age]?.read(block * BLOCK_SIZE, 4);
  const word = bytes === undefined ? Number.NaN : viewOf(bytes).getUint32(0, true);
  return word === 0 ? 'zeros' : (word - stampOf(0, 0)) / 32;
}
export const states = (store: ForeignStore): string[] => store.snapshots.map(({ state }) => state);
