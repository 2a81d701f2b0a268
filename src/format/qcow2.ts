/**
 * The header of a qcow2 image, as QEMU's docs/interop/qcow2.txt describes it: version 3, big-endian.
 *
 * It fills the first cluster: 104 bytes of fields, header extensions, then the name of the backing file. One extension is
 * ours, which readers skip and qemu-img keeps: which snapshot the image holds, and since which one. So an incremental
 * image can be checked against the one that it is to be read through.
 */
import { assert, FormatError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { badField, viewOf } from './binary.js';
import { decodeGuid, encodeGuid, GUID_SIZE, type Guid, NIL_GUID } from './guid.js';
import { structure } from './structure.js';

/** What an image is read through where it holds nothing itself. */
export interface Qcow2Backing {
  /** As readers take it: relative to the folder of the image, or absolute. At most 1023 bytes of UTF-8. */
  readonly name: string;
  /** `undefined`: readers guess, which is not safe for a raw image whose content others choose. */
  readonly format: string | undefined;
}

/** What an image was made from. */
export interface Qcow2Origin {
  readonly snapshotId: Guid;
  /** The image holds only what changed since that snapshot; `undefined`: it holds everything. */
  readonly sinceId: Guid | undefined;
}

export interface Qcow2Header {
  /** A cluster has `2 ** clusterBits` bytes. */
  readonly clusterBits: number;
  /** Bytes of the disk that the image stands for. */
  readonly size: ByteLength;
  readonly l1: { readonly offset: ByteOffset; readonly entries: number };
  readonly refcountTable: { readonly offset: ByteOffset; readonly clusters: number };
  readonly backing: Qcow2Backing | undefined;
  /** `undefined` in an image that volsnap did not write. */
  readonly origin: Qcow2Origin | undefined;
}

/** Fields up to here are in version 2 as well. */
const VERSION_2_LENGTH = 72;

export const QCOW2_HEADER = structure('qcow2 header', 104, {
  magic: 4,
  version: 4,
  backingNameOffset: 8,
  backingNameLength: 4,
  clusterBits: 4,
  size: 8,
  encryption: 4,
  l1Entries: 4,
  l1Offset: 8,
  refcountTableOffset: 8,
  refcountTableClusters: 4,
  snapshotCount: 4,
  snapshotsOffset: 8,
  incompatible: 8,
  compatible: 8,
  autoclear: 8,
  refcountOrder: 4,
  headerLength: 4,
});
const at = QCOW2_HEADER.at;

/** "QFI" and 0xFB. */
const MAGIC = 0x51_46_49_fb;
/** Entries of refcount blocks have `2 ** 4` bits, as nearly every image has. */
export const REFCOUNT_ORDER = 4;
const CLUSTER_BITS = { least: 9, most: 21 } as const;
const NAME_LENGTH_MAX = 1023;

const Extension = {
  end: 0,
  backingFormat: 0xe2_79_2a_ca,
  /** Ours: "VSNQ". 0 GUID of the snapshot | 16 GUID of the one before, nil for none. */
  origin: 0x56_53_4e_51,
} as const;
const EXTENSION_HEAD = 8;
const ORIGIN_LENGTH = 2 * GUID_SIZE;

/** Whether these first bytes of a file are those of a qcow2 image. */
export const isQcow2 = (bytes: Uint8Array): boolean =>
  bytes.byteLength >= 4 && viewOf(bytes).getUint32(0) === MAGIC;

/** The first cluster of an image. */
export function encodeQcow2Header(header: Qcow2Header): Uint8Array {
  const { clusterBits, size, l1, refcountTable, backing, origin } = header;
  const bytes = new Uint8Array(2 ** clusterBits);
  const view = viewOf(bytes);
  view.setUint32(at.magic, MAGIC);
  view.setUint32(at.version, 3);
  view.setUint32(at.clusterBits, clusterBits);
  view.setBigUint64(at.size, BigInt(size));
  view.setUint32(at.l1Entries, l1.entries);
  view.setBigUint64(at.l1Offset, BigInt(l1.offset));
  view.setBigUint64(at.refcountTableOffset, BigInt(refcountTable.offset));
  view.setUint32(at.refcountTableClusters, refcountTable.clusters);
  view.setUint32(at.refcountOrder, REFCOUNT_ORDER);
  view.setUint32(at.headerLength, QCOW2_HEADER.size);
  let end = QCOW2_HEADER.size;
  const extend = (type: number, data: Uint8Array): void => {
    view.setUint32(end, type);
    view.setUint32(end + 4, data.byteLength);
    bytes.set(data, end + EXTENSION_HEAD);
    end += EXTENSION_HEAD + Math.ceil(data.byteLength / 8) * 8;
  };
  if (backing?.format !== undefined) extend(Extension.backingFormat, Buffer.from(backing.format));
  if (origin !== undefined) extend(Extension.origin, encodeOrigin(origin));
  extend(Extension.end, new Uint8Array(0));
  if (backing !== undefined) {
    const name = Buffer.from(backing.name);
    assert(isBackingName(backing.name), () => `a backing name of ${name.byteLength} bytes`);
    view.setBigUint64(at.backingNameOffset, BigInt(end));
    view.setUint32(at.backingNameLength, name.byteLength);
    bytes.set(name, end);
  }
  return bytes;
}

/** Whether the header has room for it: 1 to 1023 bytes. */
export function isBackingName(name: string): boolean {
  const length = Buffer.byteLength(name);
  return length >= 1 && length <= NAME_LENGTH_MAX;
}

function encodeOrigin({ snapshotId, sinceId }: Qcow2Origin): Uint8Array {
  const bytes = new Uint8Array(ORIGIN_LENGTH);
  encodeGuid(bytes, 0, snapshotId);
  encodeGuid(bytes, GUID_SIZE, sinceId ?? NIL_GUID);
  return bytes;
}

/**
 * The header of an image, whoever wrote it, version 2 or 3.
 * @param bytes the beginning of the image: its first cluster, or as much of it as the header takes
 * @throws FormatError naming the field
 */
export function decodeQcow2Header(bytes: Uint8Array): Qcow2Header {
  if (bytes.byteLength < QCOW2_HEADER.size)
    throw badField(undefined, 'qcow2 header length', bytes.byteLength, `at least ${QCOW2_HEADER.size} bytes`);
  const view = viewOf(bytes);
  const magic = view.getUint32(at.magic);
  if (magic !== MAGIC) throw badField(undefined, 'qcow2 magic', magic, `0x${MAGIC.toString(16)}`);
  const version = view.getUint32(at.version);
  if (version !== 2 && version !== 3) throw badField(undefined, 'qcow2 version', version, '2 or 3');
  const clusterBits = view.getUint32(at.clusterBits);
  if (clusterBits < CLUSTER_BITS.least || clusterBits > CLUSTER_BITS.most)
    throw badField(undefined, 'qcow2 cluster bits', clusterBits, '9 to 21');
  const length = version === 2 ? VERSION_2_LENGTH : view.getUint32(at.headerLength);
  const room = Math.min(bytes.byteLength, 2 ** clusterBits);
  if ((version === 3 && length < QCOW2_HEADER.size) || length % 8 !== 0 || length > room)
    throw badField(undefined, 'qcow2 header length', length, `a multiple of 8 from 104 to ${room}`);
  const name = decodeName(bytes, view, room);
  const { format, origin } = decodeExtensions(bytes.subarray(0, name?.offset ?? room), length);
  return {
    clusterBits,
    size: safeU64(view, at.size, 'qcow2 size'),
    l1: { offset: safeU64(view, at.l1Offset, 'qcow2 L1 offset'), entries: view.getUint32(at.l1Entries) },
    refcountTable: {
      offset: safeU64(view, at.refcountTableOffset, 'qcow2 refcount table offset'),
      clusters: view.getUint32(at.refcountTableClusters),
    },
    backing: name && { name: name.text, format },
    origin,
  };
}

function decodeName(
  bytes: Uint8Array,
  view: DataView,
  room: number,
): { offset: number; text: string } | undefined {
  const offset = safeU64(view, at.backingNameOffset, 'qcow2 backing name offset');
  if (offset === 0) return undefined;
  const length = view.getUint32(at.backingNameLength);
  if (length > NAME_LENGTH_MAX || offset + length > room)
    throw badField(
      undefined,
      'qcow2 backing name',
      `${length} bytes at ${offset}`,
      'within the first cluster',
    );
  return { offset, text: Buffer.from(bytes.subarray(offset, offset + length)).toString() };
}

function decodeExtensions(
  bytes: Uint8Array,
  from: number,
): { format: string | undefined; origin: Qcow2Origin | undefined } {
  const view = viewOf(bytes);
  let format: string | undefined;
  let origin: Qcow2Origin | undefined;
  for (let start = from; start + EXTENSION_HEAD <= bytes.byteLength; ) {
    const type = view.getUint32(start);
    if (type === Extension.end) break;
    const length = view.getUint32(start + 4);
    const data = bytes.subarray(start + EXTENSION_HEAD, start + EXTENSION_HEAD + length);
    if (data.byteLength < length)
      throw new FormatError(
        `the qcow2 header extension at ${start} has ${length} bytes, past the header's end`,
      );
    if (type === Extension.backingFormat) format = Buffer.from(data).toString();
    if (type === Extension.origin && length >= ORIGIN_LENGTH) origin = decodeOrigin(data);
    start += EXTENSION_HEAD + Math.ceil(length / 8) * 8;
  }
  return { format, origin };
}

function decodeOrigin(bytes: Uint8Array): Qcow2Origin {
  const sinceId = decodeGuid(bytes, GUID_SIZE);
  return { snapshotId: decodeGuid(bytes, 0), sinceId: sinceId === NIL_GUID ? undefined : sinceId };
}

function safeU64(view: DataView, offset: number, field: string): number {
  const value = view.getBigUint64(offset);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw badField(undefined, field, value, 'no larger than 2^53 - 1');
  return Number(value);
}
