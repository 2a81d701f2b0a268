/**
 * The tables of a qcow2 image: where each cluster of the disk lies, and which clusters of the file are in use.
 *
 * An L1 table has an entry for each L2 table, an L2 table fills one cluster and has an entry for each cluster of the disk.
 * Both kinds of entry are 8 bytes, big-endian: bit 63 says that nothing else refers to what lies at the offset. An entry
 * of 0 says nothing: then the backing file is read, and zeros where there is none. Bit 0 of an L2 entry says that the
 * cluster reads as zeros.
 *
 * Refcount blocks have 16 bits for each cluster of the file; the refcount table has their offsets.
 */
import { assert } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { REFCOUNT_ORDER } from './qcow2.js';

export const TABLE_ENTRY_SIZE = 8;
const REFCOUNT_SIZE = 2 ** REFCOUNT_ORDER / 8;
const TWO_TO_32 = 0x1_0000_0000;
/** Bit 63, in the upper half of an entry. */
const ONLY_REFERENCE = 0x8000_0000;
const READS_AS_ZEROS = 1;
/** An offset has 56 bits. */
const OFFSET_END = 2 ** 56;

/** QEMU opens no larger L1 table, bytes. */
const L1_MAX = 32 * 1024 * 1024;

/** Bytes of the disk that one L2 table describes. */
export const l2Reach = (clusterSize: ByteLength): ByteLength =>
  (clusterSize / TABLE_ENTRY_SIZE) * clusterSize;

/** How many entries the L1 table of a disk of `size` bytes has; `undefined`: more than QEMU opens. */
export function l1EntriesFor(size: ByteLength, clusterSize: ByteLength): number | undefined {
  const entries = Math.max(1, Math.ceil(size / l2Reach(clusterSize)));
  return entries * TABLE_ENTRY_SIZE <= L1_MAX ? entries : undefined;
}

/** The smallest clusters, `2 ** least` bytes or larger, in which QEMU opens a disk of `size` bytes; as bits. */
export function clusterBitsFor(size: ByteLength, least: number): number {
  let bits = least;
  while (l1EntriesFor(size, 2 ** bits) === undefined) bits++;
  return bits;
}

/** Says where an L2 table, or a cluster of the disk, lies. */
export function setOffsetEntry(view: DataView, index: number, offset: ByteOffset): void {
  assert(offset > 0 && offset < OFFSET_END, () => `a cluster at ${offset}`);
  view.setUint32(index * TABLE_ENTRY_SIZE, (Math.floor(offset / TWO_TO_32) | ONLY_REFERENCE) >>> 0);
  view.setUint32(index * TABLE_ENTRY_SIZE + 4, offset >>> 0);
}

/** Says that a cluster of the disk reads as zeros, whatever the backing file has. */
export function setZerosEntry(view: DataView, index: number): void {
  view.setUint32(index * TABLE_ENTRY_SIZE, 0);
  view.setUint32(index * TABLE_ENTRY_SIZE + 4, READS_AS_ZEROS);
}

/** Says where a refcount block lies. */
export function setRefcountBlock(view: DataView, index: number, offset: ByteOffset): void {
  view.setBigUint64(index * TABLE_ENTRY_SIZE, BigInt(offset));
}

/** What counts the references of a whole file, itself included. */
export interface RefcountPlan {
  readonly tableClusters: number;
  /** One cluster each. */
  readonly blocks: number;
}

/** The smallest refcount structure that covers `clusters` clusters and its own. */
export function planRefcounts(clusters: number, clusterSize: ByteLength): RefcountPlan {
  const perBlock = clusterSize / REFCOUNT_SIZE;
  let plan: RefcountPlan = { tableClusters: 1, blocks: 1 };
  for (;;) {
    const blocks = Math.ceil((clusters + plan.tableClusters + plan.blocks) / perBlock);
    const tableClusters = Math.ceil((blocks * TABLE_ENTRY_SIZE) / clusterSize);
    // More blocks never need fewer, so this ends.
    if (blocks === plan.blocks && tableClusters === plan.tableClusters) return plan;
    plan = { tableClusters, blocks };
  }
}

/** A refcount block in which the first `count` clusters, at most as many as it has room for, are in use once. */
export function encodeRefcountBlock(clusterSize: ByteLength, count: number): Uint8Array {
  const bytes = new Uint8Array(clusterSize);
  for (let i = 1; i < Math.min(count * REFCOUNT_SIZE, clusterSize); i += REFCOUNT_SIZE) bytes[i] = 1;
  return bytes;
}

/** Clusters that one refcount block covers. */
export const refcountBlockReach = (clusterSize: ByteLength): number => clusterSize / REFCOUNT_SIZE;
