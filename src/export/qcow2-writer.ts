/**
 * Writes a qcow2 image from its beginning to its end, clusters of the disk in ascending order.
 *
 * In the file come: the header's cluster; clusters with data, each L2 table behind those that it describes; the L1 table;
 * refcount table and blocks. Nothing is ever moved or freed, so every cluster of the file is in use exactly once, and the
 * refcounts follow from the length alone. The header is written last, after a flush: half an image is no image.
 *
 * In memory are one L2 table, the L1 table (256 KiB for 1 TiB in clusters of 16 KiB), and what has not been written yet.
 */
import { type BlockDevice, type ResizableDevice, writeAll } from '../device/block-device.js';
import { assert, LimitError, NoSpaceError, UnsupportedError } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { encodeQcow2Header, type Qcow2Backing, type Qcow2Origin } from '../format/qcow2.js';
import {
  encodeRefcountBlock,
  l1EntriesFor,
  l2Reach,
  planRefcounts,
  refcountBlockReach,
  setOffsetEntry,
  setRefcountBlock,
  setZerosEntry,
  TABLE_ENTRY_SIZE,
} from '../format/qcow2-tables.js';
import { type ByteLength, type ByteOffset, roundUp, SECTOR_SIZE } from '../units.js';

export interface Qcow2Disk {
  /** Bytes of the disk, a multiple of 512: QEMU cuts off what is not. */
  readonly size: ByteLength;
  readonly clusterBits: number;
  readonly backing: Qcow2Backing | undefined;
  readonly origin: Qcow2Origin | undefined;
}

/** The file grows ahead of what is written in steps of this many bytes. */
const GROWTH = 8 * 1024 * 1024;
/** Refcount blocks written at once. */
const BLOCKS_AT_ONCE = 64;

export class Qcow2Writer {
  readonly clusterSize: ByteLength;
  readonly #device: BlockDevice | ResizableDevice;
  readonly #disk: Qcow2Disk;
  readonly #l1Entries: number;
  readonly #l1: Uint8Array;
  /** The L2 table being filled, and which one it is. */
  #l2: { readonly index: number; readonly bytes: Uint8Array; readonly view: DataView } | undefined;
  /** Clusters that belong at the end of what is written, in order. */
  #pending: Uint8Array[] = [];
  /** Bytes of the file in front of `#pending`. */
  #written: ByteLength;
  /** The next cluster of the disk may not be before this one. */
  #nextCluster = 0;
  /** Did the file have to grow? Then it is cut at the end of the image. */
  #grew = false;

  /**
   * @param device what it holds is replaced, from byte 0 on; it grows as needed if it can
   * @throws LimitError if QEMU would not open an image of such a disk
   */
  constructor(device: BlockDevice | ResizableDevice, disk: Qcow2Disk) {
    assert(disk.size % SECTOR_SIZE === 0, () => `a disk of ${disk.size} bytes`);
    this.clusterSize = 2 ** disk.clusterBits;
    const entries = l1EntriesFor(disk.size, this.clusterSize);
    if (entries === undefined) {
      throw new LimitError(
        `${disk.size} bytes are too many for a qcow2 image in clusters of ${this.clusterSize}; use format raw`,
      );
    }
    this.#device = device;
    this.#disk = disk;
    this.#l1Entries = entries;
    this.#l1 = new Uint8Array(roundUp(entries * TABLE_ENTRY_SIZE, this.clusterSize));
    this.#written = this.clusterSize;
  }

  /** Makes sure that an older image on the device is not taken for the new one while that is written. */
  async begin(): Promise<void> {
    if (this.#device.size === 0) return;
    await this.#device.write(0, new Uint8Array(Math.min(SECTOR_SIZE, this.#device.size)));
    await this.#device.flush();
  }

  /** Bytes of the file so far. */
  get #end(): ByteOffset {
    return this.#written + this.#pending.length * this.clusterSize;
  }

  /** Puts `bytes`, which belong to the writer until the next `writePending`, into cluster number `cluster` of the disk. */
  data(cluster: number, bytes: Uint8Array): void {
    const { view, index } = this.#entryOf(cluster);
    setOffsetEntry(view, index, this.#append(bytes));
  }

  /** Makes a cluster of the disk read as zeros even if the backing file has something there. */
  zeros(cluster: number): void {
    const { view, index } = this.#entryOf(cluster);
    setZerosEntry(view, index);
  }

  /** @throws NoSpaceError, DeviceError */
  async writePending(): Promise<void> {
    if (this.#pending.length === 0) return;
    const end = this.#end;
    await this.#makeRoom(end);
    await writeAll(this.#device, this.#written, this.#pending);
    this.#written = end;
    this.#pending = [];
  }

  /** Writes the tables and the header, durably. @returns bytes of the file */
  async finish(): Promise<ByteLength> {
    this.#finishL2();
    const l1Offset = this.#end;
    for (let at = 0; at < this.#l1.byteLength; at += this.clusterSize) {
      this.#append(this.#l1.subarray(at, at + this.clusterSize));
    }
    const refcountTable = await this.#writeRefcounts();
    if (this.#grew && 'resize' in this.#device) await this.#device.resize(this.#written);
    await this.#device.flush();
    const { size, clusterBits, backing, origin } = this.#disk;
    const l1 = { offset: l1Offset, entries: this.#l1Entries };
    const header = encodeQcow2Header({ size, clusterBits, backing, origin, l1, refcountTable });
    await this.#device.write(0, header);
    await this.#device.flush();
    return this.#written;
  }

  async #writeRefcounts(): Promise<{ offset: ByteOffset; clusters: number }> {
    const before = this.#end / this.clusterSize;
    const { tableClusters, blocks } = planRefcounts(before, this.clusterSize);
    const offset = this.#end;
    const table = new Uint8Array(tableClusters * this.clusterSize);
    const view = viewOf(table);
    for (let index = 0; index < blocks; index++) {
      setRefcountBlock(view, index, offset + (tableClusters + index) * this.clusterSize);
    }
    for (let at = 0; at < table.byteLength; at += this.clusterSize) {
      this.#append(table.subarray(at, at + this.clusterSize));
    }
    const reach = refcountBlockReach(this.clusterSize);
    const clusters = before + tableClusters + blocks;
    const full = encodeRefcountBlock(this.clusterSize, reach);
    for (let index = 0; index < blocks; index++) {
      const count = clusters - index * reach;
      this.#append(count >= reach ? full : encodeRefcountBlock(this.clusterSize, count));
      if (index % BLOCKS_AT_ONCE === 0) await this.writePending();
    }
    await this.writePending();
    assert(
      this.#written === clusters * this.clusterSize,
      () => `${this.#written} bytes, ${clusters} counted`,
    );
    return { offset, clusters: tableClusters };
  }

  #entryOf(cluster: number): { readonly view: DataView; readonly index: number } {
    assert(cluster >= this.#nextCluster, () => `cluster ${cluster} comes after ${this.#nextCluster - 1}`);
    this.#nextCluster = cluster + 1;
    const perTable = l2Reach(this.clusterSize) / this.clusterSize;
    const table = Math.floor(cluster / perTable);
    assert(table < this.#l1Entries, () => `cluster ${cluster} of a disk of ${this.#disk.size} bytes`);
    if (this.#l2?.index !== table) {
      this.#finishL2();
      const bytes = new Uint8Array(this.clusterSize);
      this.#l2 = { index: table, bytes, view: viewOf(bytes) };
    }
    return { view: this.#l2.view, index: cluster % perTable };
  }

  #finishL2(): void {
    if (this.#l2 === undefined) return;
    setOffsetEntry(viewOf(this.#l1), this.#l2.index, this.#append(this.#l2.bytes));
    this.#l2 = undefined;
  }

  #append(cluster: Uint8Array): ByteOffset {
    assert(cluster.byteLength === this.clusterSize, () => `a cluster of ${cluster.byteLength} bytes`);
    const offset = this.#end;
    this.#pending.push(cluster);
    return offset;
  }

  async #makeRoom(end: ByteOffset): Promise<void> {
    const device = this.#device;
    if (end <= device.size) return;
    const tooSmall = (cause?: unknown) =>
      new NoSpaceError(`${device.name} has ${device.size} bytes, too few for the image: give more room`, {
        cause,
      });
    if (!('resize' in device)) throw tooSmall();
    await device.resize(roundUp(end, GROWTH)).catch((cause: unknown) => {
      throw cause instanceof UnsupportedError ? tooSmall(cause) : cause;
    });
    this.#grew = true;
  }
}
