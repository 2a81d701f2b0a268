/**
 * Reads qcow2 images by the letter of QEMU's document, sharing no code with the writer, and checks what qemu-img check
 * checks: every cluster of the file is referred to exactly as often as its refcount says.
 */
import { expect } from 'vitest';

const OFFSET_BITS = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;

export type ClusterKind = 'absent' | 'zeros' | 'data';

export interface Qcow2Image {
  readonly size: number;
  readonly clusterSize: number;
  readonly backing: string | undefined;
  /** What each cluster of the disk is. */
  readonly clusters: readonly ClusterKind[];
  /** The disk, read through `below` where the image has nothing. */
  read(below?: Uint8Array): Uint8Array;
}

export function parseImage(file: Uint8Array): Qcow2Image {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const u64 = (at: number) => Number(view.getBigUint64(at));
  expect(Buffer.from(file.subarray(0, 4)).toString('latin1')).toBe('QFI\xfb');
  expect(view.getUint32(4)).toBe(3);
  const clusterSize = 2 ** view.getUint32(20);
  const size = u64(24);
  expect(size % 512).toBe(0);
  expect(file.byteLength % clusterSize).toBe(0);
  const references = new Map<number, number>([[0, 1]]);
  const refer = (offset: number): number => {
    if (offset % clusterSize !== 0 || offset >= file.byteLength)
      expect.fail(`no cluster begins at ${offset}`);
    references.set(offset / clusterSize, (references.get(offset / clusterSize) ?? 0) + 1);
    return offset;
  };
  const perTable = clusterSize / 8;
  const count = Math.ceil(size / clusterSize);
  const entries: bigint[] = Array<bigint>(count).fill(0n);
  const [l1Entries, l1] = [view.getUint32(36), u64(40)];
  expect(l1Entries).toBe(Math.max(1, Math.ceil(count / perTable)));
  for (let at = 0; at < l1Entries * 8; at += clusterSize) refer(l1 + at);
  for (let i = 0; i < l1Entries; i++) {
    const entry = view.getBigUint64(l1 + i * 8);
    if (entry === 0n) continue;
    expect(entry & ~OFFSET_BITS).toBe(COPIED);
    const l2 = refer(Number(entry & OFFSET_BITS));
    for (let j = 0; j < perTable; j++) {
      const inner = view.getBigUint64(l2 + j * 8);
      if (i * perTable + j < count) entries[i * perTable + j] = inner;
      else if (inner !== 0n) expect.fail(`an entry behind the end of the disk is ${inner}`);
      if (inner > 1n) {
        if ((inner & ~OFFSET_BITS) !== COPIED) expect.fail(`entry ${j} of an L2 table is ${inner}`);
        refer(Number(inner & OFFSET_BITS));
      }
    }
  }
  const [table, tableClusters] = [u64(48), view.getUint32(56)];
  for (let i = 0; i < tableClusters; i++) refer(table + i * clusterSize);
  const blocks: number[] = [];
  for (let i = 0; i < tableClusters * perTable; i++) {
    const block = u64(table + i * 8);
    blocks.push(block);
    if (block !== 0) refer(block);
  }
  expect([view.getUint32(96), view.getUint32(60), view.getUint32(32)]).toEqual([4, 0, 0]);
  expect([u64(72), u64(80), u64(88)], 'features').toEqual([0, 0, 0]);
  for (let cluster = 0; cluster < file.byteLength / clusterSize; cluster++) {
    const block = blocks[Math.floor(cluster / (clusterSize / 2))] ?? 0;
    const counted = block === 0 ? 0 : view.getUint16(block + (cluster % (clusterSize / 2)) * 2);
    const found = references.get(cluster) ?? 0;
    if (counted !== found)
      expect.fail(`cluster ${cluster} is referred to ${found} times, counted ${counted}`);
  }
  const [nameAt, nameLength] = [u64(8), view.getUint32(16)];
  return {
    size,
    clusterSize,
    backing: nameAt === 0 ? undefined : Buffer.from(file.subarray(nameAt, nameAt + nameLength)).toString(),
    clusters: entries.map((entry) => (entry === 0n ? 'absent' : entry === 1n ? 'zeros' : 'data')),
    read(below = new Uint8Array(0)) {
      const disk = new Uint8Array(size);
      disk.set(below.subarray(0, size));
      entries.forEach((entry, cluster) => {
        const at = cluster * clusterSize;
        const length = Math.min(clusterSize, size - at);
        if (entry === 1n) disk.fill(0, at, at + length);
        else if (entry !== 0n) {
          const from = Number(entry & OFFSET_BITS);
          disk.set(file.subarray(from, from + length), at);
        }
      });
      return disk;
    },
  };
}
