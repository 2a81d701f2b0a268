/**
 * What is about to change in the backing, noted in the image before it does.
 *
 * The last commit says what is cached, and says it until the next one. If the backing changes meanwhile and power fails, what it says of that
 * place may be wrong. So before the backing is written a bit is set for the region, durably; whoever opens the image after a crash drops what lies in
 * regions with a bit. The next commit no longer names the old content, and the bit goes. A sector of bits is written whole or not at
 * all, and one bit too many costs a part of the cache, nothing else: regions share bits where the volume is large.
 *
 * Bits come in two generations. Those of `before` were set before the commit under way froze the tree, and are not needed any more once it is
 * durable. Beside them is kept, in memory only, where anything left the tree since the last commit: a write elsewhere, where nothing is cached,
 * needs no bit.
 *
 * Shared state: the bits, changed between awaits only; the sectors in the image, written under a mutex.
 */
import { Mutex } from 'async-mutex';
import type { BlockDevice } from '../device/block-device.js';
import { isZero } from '../format/binary.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';

/** Blocks of a region: 64 KiB. */
export const REGION_BLOCKS = 128;
const BITS_PER_SECTOR = 8 * VCI_BLOCK_SIZE;
/** Blocks of the bits of the largest image: 128 KiB. */
const SECTORS_MAX = 256;

/** How many blocks the bits of an image take: one bit for each region that fits into it, in whole blocks, a power of two of them. */
export function intentBlocksFor(imageBlocks: number): number {
  const sectors = Math.ceil(imageBlocks / REGION_BLOCKS / BITS_PER_SECTOR);
  return Math.min(SECTORS_MAX, 2 ** Math.ceil(Math.log2(Math.max(1, sectors))));
}

/** A set of regions, in two generations. */
class RegionSet {
  now: Uint8Array;
  before: Uint8Array;

  constructor(bytes: number) {
    this.now = new Uint8Array(bytes);
    this.before = new Uint8Array(bytes);
  }

  add(bit: number): void {
    this.now[bit >> 3] = (this.now[bit >> 3] ?? 0) | (1 << (bit & 7));
  }

  has(bit: number): boolean {
    return (((this.now[bit >> 3] ?? 0) | (this.before[bit >> 3] ?? 0)) & (1 << (bit & 7))) !== 0;
  }

  freeze(): void {
    for (let at = 0; at < this.now.byteLength; at++)
      this.before[at] = (this.before[at] ?? 0) | (this.now[at] ?? 0);
    this.now.fill(0);
  }
}

export class Intents {
  readonly #device: BlockDevice;
  readonly #offset: number;
  readonly #bits: number;
  readonly #intended: RegionSet;
  readonly #gone: RegionSet;
  /** Set in the image for certain. */
  readonly #durable: Uint8Array;
  readonly #mutex = new Mutex();
  /** Sectors that somebody waits for, and the wait of all who do. */
  readonly #wanted = new Set<number>();
  #writing: Promise<void> | undefined;

  /** @param address first block of the bits in the image @param bits as they are in the image, durable; they are kept */
  constructor(device: BlockDevice, address: number, bits: Uint8Array) {
    this.#device = device;
    this.#offset = address * VCI_BLOCK_SIZE;
    this.#bits = 8 * bits.byteLength;
    this.#intended = new RegionSet(bits.byteLength);
    this.#intended.now.set(bits);
    this.#gone = new RegionSet(bits.byteLength);
    this.#durable = bits.slice();
  }

  /** The extent left the tree. */
  left(first: number, count: number): void {
    for (const bit of this.#bitsOf(first, first + count)) this.#gone.add(bit);
  }

  /** May the last commit say that something of this range is cached which is not in the tree any more? */
  hasLeft(first: number, end: number): boolean {
    for (const bit of this.#bitsOf(first, end)) if (this.#gone.has(bit)) return true;
    return false;
  }

  /** Is a bit set for the region that holds `block`? */
  has(block: number): boolean {
    return this.#intended.has(this.#bitOf(block));
  }

  /** Is any bit set? */
  get isEmpty(): boolean {
    const { now, before } = this.#intended;
    return isZero(now) && isZero(before);
  }

  /**
   * Sets the bits of a range, at the call. @returns when they are durable
   * @throws DeviceError if they cannot be made so: then the backing must not be written
   */
  async mark(first: number, end: number): Promise<void> {
    let isDurable = true;
    for (const bit of this.#bitsOf(first, end)) {
      this.#intended.add(bit);
      if (((this.#durable[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0) continue;
      isDurable = false;
      this.#wanted.add(Math.floor(bit / BITS_PER_SECTOR));
    }
    if (isDurable) return;
    // Whoever comes while others are being written goes with the next ones, together.
    this.#writing ??= this.#mutex.runExclusive(() => {
      this.#writing = undefined;
      return this.#writeWanted();
    });
    await this.#writing;
  }

  async #writeWanted(): Promise<void> {
    const written: [number, Uint8Array][] = [...this.#wanted].map((sector) => [sector, this.#sector(sector)]);
    this.#wanted.clear();
    await Promise.all(written.map(([sector, bytes]) => this.#write(sector, bytes)));
    await this.#device.flush();
    for (const [sector, bytes] of written) this.#durable.set(bytes, sector * VCI_BLOCK_SIZE);
  }

  /** A commit froze the tree. */
  freeze(): void {
    this.#intended.freeze();
    this.#gone.freeze();
  }

  /** That commit is durable: what was marked before it froze the tree is not needed any more. */
  committed(): Promise<void> {
    return this.#mutex.runExclusive(async () => {
      this.#intended.before.fill(0);
      this.#gone.before.fill(0);
      const cleared: [number, Uint8Array][] = [];
      for (let sector = 0; sector < this.#bits / BITS_PER_SECTOR; sector++) {
        if (!this.#hasNeedless(sector)) continue;
        const bytes = this.#sector(sector);
        const from = sector * VCI_BLOCK_SIZE;
        for (let at = 0; at < VCI_BLOCK_SIZE; at++)
          this.#durable[from + at] = (this.#durable[from + at] ?? 0) & (bytes[at] ?? 0);
        cleared.push([sector, bytes]);
      }
      await Promise.all(cleared.map(([sector, bytes]) => this.#write(sector, bytes)));
    });
  }

  /** Is a bit of this sector set in the image that need not be? After each commit that is asked of all sectors. */
  #hasNeedless(sector: number): boolean {
    const { now, before } = this.#intended;
    const end = (sector + 1) * VCI_BLOCK_SIZE;
    for (let at = sector * VCI_BLOCK_SIZE; at < end; at++)
      if (((this.#durable[at] ?? 0) & ~((now[at] ?? 0) | (before[at] ?? 0))) !== 0) return true;
    return false;
  }

  /** What the image has to hold of a sector of bits. */
  #sector(sector: number): Uint8Array {
    const from = sector * VCI_BLOCK_SIZE;
    const { now, before } = this.#intended;
    const bytes = new Uint8Array(VCI_BLOCK_SIZE);
    for (let at = 0; at < VCI_BLOCK_SIZE; at++) bytes[at] = (now[from + at] ?? 0) | (before[from + at] ?? 0);
    return bytes;
  }

  #write(sector: number, bytes: Uint8Array): Promise<void> {
    return this.#device.write(this.#offset + sector * VCI_BLOCK_SIZE, bytes);
  }

  #bitOf(block: number): number {
    return Math.floor(block / REGION_BLOCKS) % this.#bits;
  }

  *#bitsOf(first: number, end: number): Generator<number> {
    const from = Math.floor(first / REGION_BLOCKS);
    const count = Math.min(this.#bits, Math.ceil(end / REGION_BLOCKS) - from);
    for (let region = from; region < from + count; region++) yield region % this.#bits;
  }
}
