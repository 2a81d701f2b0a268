/**
 * What an NTFS volume does not use: its file `$Bitmap`, if that can be relied on.
 *
 * While the volume is mounted, what `$Bitmap` calls free may have data already. Windows' log says whether it was closed properly.
 * ntfs-3g keeps no log, and leaves an empty one: then it cannot be told. Who knows that the volume is not mounted, or frozen (its
 * cache is flushed and nobody writes), may say so.
 */
import { BLOCK_SIZE, type ByteLength, roundUp } from '../units.js';
import {
  clearRuns,
  type FileSystemSource,
  type FreeSpaceProvider,
  sure,
  UnusedRanges,
  unlessUnsure,
} from './free-space.js';
import {
  AttributeType,
  attributesOf,
  BOOT_SECTOR_SIZE,
  type ClusterRun,
  decodeBoot,
  decodeRestartPage,
  isMarkedDirty,
  LOG_PAGE_SIZE,
  type NonResident,
  type NtfsAttribute,
  type NtfsBoot,
  nonResidentContent,
  residentContent,
  withoutFixups,
} from './ntfs-format.js';

export interface NtfsFreeSpaceOptions {
  /** The caller knows that the volume is frozen or not mounted: `$Bitmap` is true whatever the log says. Default: no. */
  readonly frozen?: boolean;
}

/** Numbers of files. */
const MFT = 0;
const LOG_FILE = 2;
const VOLUME = 3;
const BITMAP = 6;

/** Bytes of the bitmap that are read at a time; a multiple of 8. */
const PART = 256 * 1024;

export const ntfsFreeSpace = ({ frozen = false }: NtfsFreeSpaceOptions = {}): FreeSpaceProvider => ({
  name: 'NTFS',
  unusedBlocks: (source, size, signal) =>
    unlessUnsure(() => new NtfsReader(source, size, signal).read(frozen)),
});

class NtfsReader {
  readonly #source: FileSystemSource;
  readonly #size: ByteLength;
  readonly #signal: AbortSignal;

  constructor(source: FileSystemSource, size: ByteLength, signal: AbortSignal) {
    this.#source = source;
    this.#size = size;
    this.#signal = signal;
  }

  async read(isFrozen: boolean): Promise<Uint8Array> {
    sure(this.#size >= BOOT_SECTOR_SIZE, () => 'the volume is too small');
    const sector = new Uint8Array(BOOT_SECTOR_SIZE);
    await this.#source.read(0, sector);
    const boot = decodeBoot(sector, this.#size);
    const table = await this.#fileTable(boot);
    await this.#checkVolume(boot, table);
    if (!isFrozen) await this.#checkLog(boot, table);
    return this.#readBitmap(boot, table);
  }

  /** Of the table itself only the first part of its runs is wanted: the files in question are its first. */
  async #fileTable(boot: NtfsBoot): Promise<NonResident> {
    const record = new Uint8Array(boot.recordSize);
    const offset = boot.mftCluster * boot.clusterSize;
    sure(offset + record.byteLength <= this.#size, () => 'the file table lies past the end');
    await this.#source.read(offset, record);
    const data = unnamedData(attributesOf(withoutFixups(record, 'FILE'), MFT));
    const table = nonResidentContent(data, boot.clusterCount);
    sure(
      table.runs[0]?.start === boot.mftCluster,
      () => 'the file table does not begin where the boot sector says',
    );
    return table;
  }

  async #attributes(boot: NtfsBoot, table: NonResident, number: number): Promise<NtfsAttribute[]> {
    const record = new Uint8Array(boot.recordSize);
    await this.#readContent(boot, table, number * boot.recordSize, record);
    const attributes = attributesOf(withoutFixups(record, 'FILE'), number);
    sure(
      attributes.every(({ type }) => type !== AttributeType.attributeList),
      () => `file record ${number} goes on in others`,
    );
    return attributes;
  }

  async #content(boot: NtfsBoot, table: NonResident, number: number): Promise<NonResident> {
    return nonResidentContent(unnamedData(await this.#attributes(boot, table, number)), boot.clusterCount);
  }

  async #checkVolume(boot: NtfsBoot, table: NonResident): Promise<void> {
    const attributes = await this.#attributes(boot, table, VOLUME);
    const information = attributes.find(({ type }) => type === AttributeType.volumeInformation);
    sure(information !== undefined, () => 'there is no volume information');
    sure(
      !isMarkedDirty(residentContent(information)),
      () => 'it is marked dirty: mounted, or in need of chkdsk',
    );
  }

  /** The newer of two restart pages counts. */
  async #checkLog(boot: NtfsBoot, table: NonResident): Promise<void> {
    const content = await this.#content(boot, table, LOG_FILE);
    sure(content.size >= 2 * LOG_PAGE_SIZE, () => `a log of ${content.size} bytes`);
    const page = new Uint8Array(LOG_PAGE_SIZE);
    await this.#readContent(boot, content, 0, page);
    const first = decodeRestartPage(page);
    await this.#readContent(boot, content, LOG_PAGE_SIZE, page);
    const second = decodeRestartPage(page);
    sure(
      first.kind !== 'empty',
      () =>
        'its log is empty, so it cannot be told whether it is mounted; if it is not, say that it is frozen',
    );
    sure(first.kind === 'restart' && second.kind === 'restart', () => 'its log is not understood');
    const newer = second.lsn > first.lsn ? second : first;
    sure(
      newer.isClean,
      () => 'it is mounted, or was not unmounted: its log is newer than its bitmap; freeze it first',
    );
  }

  async #readBitmap(boot: NtfsBoot, table: NonResident): Promise<Uint8Array> {
    const { clusterCount, clusterSize } = boot;
    const content = await this.#content(boot, table, BITMAP);
    const bytes = Math.ceil(clusterCount / 8);
    sure(
      content.size >= bytes && content.initializedSize >= bytes,
      () =>
        `a bitmap of ${content.size} bytes, of which ${content.initializedSize} were written, for ${clusterCount} clusters`,
    );
    const ranges = new UnusedRanges(this.#size);
    const part = new Uint8Array(Math.min(PART, bytes));
    for (let at = 0; at < bytes; at += PART) {
      this.#signal.throwIfAborted();
      const bits = part.subarray(0, Math.min(PART, bytes - at));
      await this.#readContent(boot, content, at, bits);
      const first = at * 8;
      for (const [start, end] of clearRuns(bits, Math.min(bits.byteLength * 8, clusterCount - first)))
        ranges.add((first + start) * clusterSize, (first + end) * clusterSize);
    }
    // Whatever the bitmap says: what was just read is in use, or the bitmap is not to be believed.
    const unused = ranges.finish();
    for (const run of [...content.runs, ...table.runs]) checkUsed(unused, run, clusterSize);
    return unused;
  }

  /** Reads bytes `at` and on of a file. */
  async #readContent(boot: NtfsBoot, { runs, initializedSize }: NonResident, at: number, target: Uint8Array) {
    sure(at + target.byteLength <= initializedSize, () => `byte ${at} of a file of ${initializedSize} bytes`);
    let fileOffset = 0;
    let done = 0;
    for (const { start, length } of runs) {
      const end = fileOffset + length * boot.clusterSize;
      while (done < target.byteLength && at + done < end) {
        const inside = at + done - fileOffset;
        const count = Math.min(target.byteLength - done, end - (at + done));
        const offset = start * boot.clusterSize + inside;
        sure(offset + count <= this.#size, () => 'a run ends past the end of the volume');
        await this.#source.read(offset, target.subarray(done, done + count));
        done += count;
      }
      fileOffset = end;
    }
    sure(done === target.byteLength, () => `byte ${at + done} of a file lies behind its runs`);
  }
}

function unnamedData(attributes: readonly NtfsAttribute[]): NtfsAttribute {
  const found = attributes.filter(({ type, isNamed }) => type === AttributeType.data && !isNamed);
  const [data] = found;
  sure(found.length === 1 && data !== undefined, () => `a file with ${found.length} contents`);
  return data;
}

/** The file table and the bitmap itself are in use, so no block of theirs may be called unused. */
function checkUsed(unused: Uint8Array, { start, length }: ClusterRun, clusterSize: number): void {
  const end = roundUp((start + length) * clusterSize, BLOCK_SIZE) / BLOCK_SIZE;
  for (let block = Math.floor((start * clusterSize) / BLOCK_SIZE); block < end; block++)
    sure(
      (((unused[block >>> 3] ?? 0) >>> (block & 7)) & 1) === 0,
      () => `the bitmap calls block ${block} free, which is not`,
    );
}
