/**
 * The structures of NTFS that say what is free, as functions over bytes: boot sector, file records, attributes, runlists, and
 * the restart page of the log.
 *
 * Source: the Linux-NTFS project's documentation. Everything is little-endian. Whatever is not understood is `Unsure`.
 */
import { sure } from './free-space.js';

export const BOOT_SECTOR_SIZE = 512;

export interface NtfsBoot {
  /** Bytes: 256 to 2 MiB. */
  readonly clusterSize: number;
  readonly clusterCount: number;
  /** Cluster where the table of files begins. */
  readonly mftCluster: number;
  /** Bytes of a file record. */
  readonly recordSize: number;
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const isPowerOfTwo = (value: number): boolean => value > 0 && (value & (value - 1)) === 0;

/** @throws Unsure above 2^53 */
function u64(view: DataView, at: number, what: string): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  sure(Number.isSafeInteger(value), () => `${what} is ${value}`);
  return value;
}

/** @param bytes the first 512 bytes of the volume; @param size bytes of the volume */
export function decodeBoot(bytes: Uint8Array, size: number): NtfsBoot {
  sure(bytes.byteLength === BOOT_SECTOR_SIZE, () => `a boot sector of ${bytes.byteLength} bytes`);
  const view = viewOf(bytes);
  const name = String.fromCharCode(...bytes.subarray(3, 11));
  sure(name === 'NTFS    ' && view.getUint16(0x1fe, true) === 0xaa55, () => 'there is no NTFS boot sector');
  const sectorSize = view.getUint16(0xb, true);
  sure(
    isPowerOfTwo(sectorSize) && sectorSize >= 256 && sectorSize <= 4096,
    () => `sectors of ${sectorSize} bytes`,
  );
  // Above 128 it is the negative of a power of two.
  const coded = view.getUint8(0xd);
  const sectorsPerCluster = coded <= 0x80 ? coded : 2 ** Math.min(32, 256 - coded);
  const clusterSize = sectorSize * sectorsPerCluster;
  sure(
    isPowerOfTwo(sectorsPerCluster) && clusterSize <= 2 * 1024 * 1024,
    () => `clusters of ${sectorsPerCluster} sectors of ${sectorSize} bytes`,
  );
  const sectors = u64(view, 0x28, 'the number of sectors');
  sure(
    sectors > 0 && sectors <= size / sectorSize,
    () => `${sectors} sectors of ${sectorSize} bytes in a volume of ${size} bytes`,
  );
  const clusterCount = Math.floor(sectors / sectorsPerCluster);
  const mftCluster = u64(view, 0x30, 'the cluster of the file table');
  sure(mftCluster > 0 && mftCluster < clusterCount, () => `the file table lies at cluster ${mftCluster}`);
  const perRecord = view.getInt8(0x40);
  const recordSize = perRecord > 0 ? perRecord * clusterSize : 2 ** Math.min(32, -perRecord);
  sure(
    isPowerOfTwo(recordSize) && recordSize >= 512 && recordSize <= 65_536,
    () => `file records of ${recordSize} bytes`,
  );
  return { clusterSize, clusterCount, mftCluster, recordSize };
}

/** Stride of the fixups: the last two bytes of each are kept elsewhere, and tell whether the record was written whole. */
const FIXUP_STRIDE = 512;

/** Puts back what fixups replaced, in a copy. @param magic `FILE`, `RSTR` */
export function withoutFixups(bytes: Uint8Array, magic: string): Uint8Array {
  const length = bytes.byteLength;
  sure(length >= FIXUP_STRIDE && length % FIXUP_STRIDE === 0, () => `a record of ${length} bytes`);
  const record = bytes.slice();
  const view = viewOf(record);
  sure(String.fromCharCode(...record.subarray(0, 4)) === magic, () => `there is no ${magic} record`);
  const at = view.getUint16(4, true);
  const count = view.getUint16(6, true);
  sure(count === length / FIXUP_STRIDE + 1, () => `${count} fixups for ${length} bytes`);
  sure(at % 2 === 0 && at >= 8 && at + 2 * count <= FIXUP_STRIDE - 2, () => `fixups at ${at}`);
  const mark = view.getUint16(at, true);
  for (let i = 1; i < count; i++) {
    const end = i * FIXUP_STRIDE - 2;
    sure(view.getUint16(end, true) === mark, () => `a ${magic} record was written in part`);
    view.setUint16(end, view.getUint16(at + 2 * i, true), true);
  }
  return record;
}

const IN_USE = 1;
const END = 0xffff_ffff;
export const AttributeType = { attributeList: 0x20, volumeInformation: 0x70, data: 0x80 } as const;

export interface NtfsAttribute {
  readonly type: number;
  readonly isNamed: boolean;
  readonly isResident: boolean;
  /** Compressed, encrypted, sparse. */
  readonly flags: number;
  /** The attribute, header included. */
  readonly bytes: Uint8Array;
}

/** The attributes of a file record without its fixups. @param number of the file, which the record must be of */
export function attributesOf(record: Uint8Array, number: number): NtfsAttribute[] {
  const view = viewOf(record);
  const used = view.getUint32(0x18, true);
  sure((view.getUint16(0x16, true) & IN_USE) !== 0, () => `file record ${number} is not in use`);
  sure(used <= record.byteLength, () => `file record ${number} says it has ${used} bytes`);
  sure(u64(view, 0x20, 'the base record') === 0, () => `file record ${number} is not a base record`);
  const attributes: NtfsAttribute[] = [];
  let at = view.getUint16(0x14, true);
  sure(at >= 0x2a && at % 8 === 0, () => `attributes of file record ${number} begin at ${at}`);
  // Records since Windows XP say which they are.
  if (at >= 0x30)
    sure(view.getUint32(0x2c, true) === number, () => `the file record is not ${number}, which belongs here`);
  for (;;) {
    sure(at + 4 <= used, () => `attributes of file record ${number} have no end`);
    const type = view.getUint32(at, true);
    if (type === END) return attributes;
    sure(at + 0x18 <= used, () => `attribute at ${at} of file record ${number} is cut off`);
    const length = view.getUint32(at + 4, true);
    sure(
      length >= 0x18 && length % 8 === 0 && at + length <= used,
      () => `attribute at ${at} of file record ${number} has ${length} bytes`,
    );
    attributes.push({
      type,
      isNamed: view.getUint8(at + 9) !== 0,
      isResident: view.getUint8(at + 8) === 0,
      flags: view.getUint16(at + 0xc, true),
      bytes: record.subarray(at, at + length),
    });
    at += length;
  }
}

/** The content of an attribute that lies in its record. */
export function residentContent({ bytes, isResident, type }: NtfsAttribute): Uint8Array {
  sure(isResident, () => `attribute ${type} lies outside its record`);
  const view = viewOf(bytes);
  const length = view.getUint32(0x10, true);
  const at = view.getUint16(0x14, true);
  sure(at >= 0x18 && at + length <= bytes.byteLength, () => `attribute ${type}: ${length} bytes at ${at}`);
  return bytes.subarray(at, at + length);
}

/** `length` clusters from cluster `start` of the volume on. */
export interface ClusterRun {
  readonly start: number;
  readonly length: number;
}

export interface NonResident {
  /** In order, from the first cluster of the content on. */
  readonly runs: readonly ClusterRun[];
  readonly size: number;
  /** What lies behind was never written, and reads as zeros. */
  readonly initializedSize: number;
}

/** Where the content of an attribute lies; its first part, if there are others. */
export function nonResidentContent(attribute: NtfsAttribute, clusterCount: number): NonResident {
  const { bytes, isResident, flags, type } = attribute;
  sure(!isResident, () => `attribute ${type} lies inside its record`);
  sure(flags === 0, () => `attribute ${type} is compressed, encrypted or sparse`);
  sure(bytes.byteLength >= 0x40, () => `attribute ${type} is cut off`);
  const view = viewOf(bytes);
  sure(u64(view, 0x10, 'the lowest cluster') === 0, () => `attribute ${type} does not begin here`);
  const highest = u64(view, 0x18, 'the highest cluster');
  const at = view.getUint16(0x20, true);
  sure(at >= 0x40 && at < bytes.byteLength, () => `the runs of attribute ${type} lie at ${at}`);
  const runs = decodeRuns(bytes.subarray(at), clusterCount);
  const clusters = runs.reduce((sum, { length }) => sum + length, 0);
  sure(
    clusters === highest + 1,
    () => `the runs of attribute ${type} have ${clusters} clusters, not ${highest + 1}`,
  );
  return {
    runs,
    size: u64(view, 0x30, 'the size'),
    initializedSize: u64(view, 0x38, 'the initialized size'),
  };
}

/** Runs as they are packed: a byte with the lengths of two numbers, the length of the run, and how far it is from the one before. */
function decodeRuns(bytes: Uint8Array, clusterCount: number): ClusterRun[] {
  const runs: ClusterRun[] = [];
  let start = 0;
  for (let at = 0; ; ) {
    const head = bytes[at++];
    sure(head !== undefined, () => 'a runlist has no end');
    if (head === 0) return runs;
    const [lengthBytes, startBytes] = [head & 0xf, head >>> 4];
    sure(
      lengthBytes >= 1 && lengthBytes <= 7 && startBytes >= 1 && startBytes <= 7,
      () => `a run is sparse or has numbers of ${lengthBytes} and ${startBytes} bytes`,
    );
    sure(at + lengthBytes + startBytes <= bytes.byteLength, () => 'a runlist is cut off');
    const length = signed(bytes.subarray(at, at + lengthBytes));
    start += signed(bytes.subarray(at + lengthBytes, at + lengthBytes + startBytes));
    at += lengthBytes + startBytes;
    sure(
      length > 0 && start >= 0 && start + length <= clusterCount,
      () => `a run of ${length} clusters from cluster ${start} of ${clusterCount} on`,
    );
    runs.push({ start, length });
  }
}

/** At most seven bytes: 2^55 is the largest, which is rounded, and larger than any volume. */
function signed(bytes: Uint8Array): number {
  let value = 0;
  for (let i = bytes.byteLength - 1; i >= 0; i--) value = value * 256 + (bytes[i] ?? 0);
  return value >= 2 ** (8 * bytes.byteLength - 1) ? value - 2 ** (8 * bytes.byteLength) : value;
}

const DIRTY = 0x1;
const UNDER_CHKDSK = 0x8000;

/** Is the volume marked as one that has to be checked? @param content of $VOLUME_INFORMATION */
export function isMarkedDirty(content: Uint8Array): boolean {
  sure(content.byteLength >= 0xc, () => `volume information of ${content.byteLength} bytes`);
  return (viewOf(content).getUint16(0xa, true) & (DIRTY | UNDER_CHKDSK)) !== 0;
}

const NO_CLIENT = 0xffff;
const CLEAN = 2;
/** A page of the log; others were never made. */
export const LOG_PAGE_SIZE = 4096;

export type LogState =
  | { readonly kind: 'empty' | 'other' }
  | { readonly kind: 'restart'; readonly lsn: bigint; readonly isClean: boolean };

/** What one of the two restart pages says. @param page the first `LOG_PAGE_SIZE` bytes of it */
export function decodeRestartPage(page: Uint8Array): LogState {
  sure(page.byteLength === LOG_PAGE_SIZE, () => `a page of ${page.byteLength} bytes`);
  if (page.every((byte) => byte === 0xff)) return { kind: 'empty' };
  if (String.fromCharCode(...page.subarray(0, 4)) !== 'RSTR') return { kind: 'other' };
  const record = withoutFixups(page, 'RSTR');
  const view = viewOf(record);
  sure(
    view.getUint32(0x10, true) === LOG_PAGE_SIZE,
    () => `the log has pages of ${view.getUint32(0x10, true)} bytes`,
  );
  const at = view.getUint16(0x18, true);
  sure(at % 8 === 0 && at >= 0x1e && at + 0x30 <= FIXUP_STRIDE, () => `the restart area lies at ${at}`);
  return {
    kind: 'restart',
    lsn: view.getBigUint64(at, true),
    isClean: view.getUint16(at + 0xc, true) === NO_CLIENT || (view.getUint16(at + 0xe, true) & CLEAN) !== 0,
  };
}
