/**
 * The write buffer of the mode `writeback`: a write that would have to wait for copies is acknowledged once its bytes are
 * here, as a disk does with its volatile cache; copying and writing go on behind it, in large groups that overlap.
 *
 *     write ──► nothing to copy, nothing older in the buffer: straight to the volume, acknowledged after it
 *          └──► else: bytes into the buffer, acknowledged
 *                 kept    until what is older and overlaps is in the volume, and no snapshot is being taken
 *                 passed  through the gate; copies are made, committed
 *                 writing together with its neighbours (see `WriteOuts`)
 *                 over
 *
 * Invariants:
 * - Changes of the same bytes reach the volume in the order in which they were acknowledged: a newer one is kept until the
 *   older is over, or is put into it while that has not begun to be written.
 * - A read lays over what the device gives whatever the buffer held when it began: also what was written out meanwhile,
 *   because the device may have been read before.
 * - While a snapshot is being taken (`plug` to `unplug`) nothing newer than its moment is passed on.
 * - Room for copies is set aside before a write is acknowledged; where there is none, it is acknowledged when it is done.
 *   What finds none all the same is *parked* (see `ParkedWrites`): readers see it, flushes fail.
 * - What was acknowledged and cannot be written for another reason stays here for readers; every flush and every change
 *   fails from then on, until the volume is opened again.
 *
 * Shared state: everything here changes between awaits only.
 */
import type { Allocated, AllocationExtent } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import { BufferPool, giveBack, type Lent, pooledSize } from '../device/buffer-pool.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { AssertionError, assert, DeviceError, isOutOfSpace } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { BufferRoom, type RoomLevel } from './buffer-room.js';
import { BufferedReads } from './buffered-reads.js';
import { type AwaitedAction, BufferedWrite } from './buffered-write.js';
import type { CopyOnWrite } from './copy-on-write.js';
import { DirectWrites } from './direct-writes.js';
import { Drains } from './drains.js';
import { OverlapIndex } from './overlap-index.js';
import { ParkedWrites } from './parked-writes.js';
import { releaseAside, setAside } from './room-aside.js';
import { TurnCredit } from './turn-credit.js';
import type { WriteBufferFigures } from './write-buffer-figures.js';
import { LONG_WRITE, type WriteBufferParts } from './write-buffer-parts.js';
import type { Shift, WriteGate } from './write-gate.js';
import { WriteOuts } from './write-outs.js';

export class WriteBuffer implements Allocated {
  readonly #device: BlockDevice;
  readonly #gate: WriteGate;
  readonly #copyOnWrite: CopyOnWrite;
  readonly #limit: ByteLength;
  readonly #room: BufferRoom;
  readonly #pool: BufferPool;
  readonly #index = new OverlapIndex<BufferedWrite>();
  readonly #writeOuts: WriteOuts;
  readonly #drains: Drains;
  readonly #turns: TurnCredit;
  readonly #direct: DirectWrites;
  /** Changes of the present epoch, while it is not passed on. */
  #plugged: BufferedWrite[] = [];
  #epoch = 0;
  /** Changes of epochs up to this one are passed on. */
  #openEpoch = 0;
  #sequence = 0;
  /** Changes that are on their way or will be: neither over nor stuck. */
  #active = 0;
  #failure: Error | undefined;
  /** The diff area of the snapshot that is being taken. */
  #incoming: DiffArea | undefined;
  readonly #parked: ParkedWrites;
  readonly #reads: BufferedReads;
  readonly #counts = { buffered: 0, absorbed: 0, roomWaits: 0, retries: 0, unbuffered: 0 };

  constructor({ device, gate, copyOnWrite, clock, limit }: WriteBufferParts) {
    this.#device = device;
    this.#gate = gate;
    this.#copyOnWrite = copyOnWrite;
    this.#parked = new ParkedWrites(device.name, clock, (write) => this.#protect(write));
    this.#reads = new BufferedReads(device, this.#index, (write) => this.#release(write));
    this.#turns = new TurnCredit(clock);
    this.#direct = new DirectWrites(device, gate);
    this.#drains = new Drains(copyOnWrite.gathering.hurry);
    this.#limit = limit;
    this.#room = new BufferRoom(limit, copyOnWrite.gathering.hurry);
    this.#pool = new BufferPool(limit / 4);
    this.#writeOuts = new WriteOuts(device, (write, error) => this.#written(write, error));
  }

  get figures(): WriteBufferFigures {
    return {
      ...this.#counts,
      direct: this.#direct.count,
      bufferedBytes: this.#room.usedBytes,
      limitBytes: this.#limit,
      entries: this.#active,
      parked: this.#parked.count,
      writeOuts: this.#writeOuts.count,
    };
  }

  /** Bytes of the volume. */
  get size(): ByteLength {
    return this.#device.size;
  }

  /** Why nothing is taken any more; `undefined` while it is. */
  get failure(): Error | undefined {
    return this.#failure ?? this.#gate.failure;
  }

  get #isPlugged(): boolean {
    return this.#epoch > this.#openEpoch;
  }

  /**
   * Resolves when readers see the bytes; they are durable after the next `flush`.
   * @param lent memory that `source` lies in, if it need not be copied because it is given away
   * @returns `undefined` if it is so already
   * @throws DeviceError, or what an earlier write-out has failed with
   */
  write(offset: ByteOffset, source: Uint8Array, lent?: Lent): Promise<void> | undefined {
    const { failure } = this;
    if (failure !== undefined) throw failure;
    const length = source.byteLength;
    if (length === 0) return undefined;
    const older = this.#index.overlapping(offset, offset + length);
    if (older.length === 0 && !this.#isPlugged && !this.#copyOnWrite.needsCopies(offset, length))
      return this.#direct.write(offset, source, lent) ?? this.#turns.spendIfShort(length);
    if (older.at(-1)?.absorb(offset, source, this.#epoch)) {
      this.#counts.absorbed++;
      giveBack(lent);
      return this.#turns.spend(length);
    }
    if (this.#room.tryAcquire(pooledSize(length))) return this.#take(offset, source, older, lent);
    // A long one is not slower when it stays in the caller's memory, and the caller waits until it is written.
    if (length >= LONG_WRITE || pooledSize(length) > this.#limit)
      return this.#awaitedWrite(offset, source, lent);
    return this.#writeLater(offset, source, lent);
  }

  /** Waits for room, in order. */
  async #writeLater(offset: ByteOffset, source: Uint8Array, lent: Lent | undefined): Promise<void> {
    this.#counts.roomWaits++;
    const size = pooledSize(source.byteLength);
    await this.#room.acquire(size);
    if (this.failure !== undefined) {
      this.#room.release(size);
      throw this.failure;
    }
    return this.#take(offset, source, this.#index.overlapping(offset, offset + source.byteLength), lent);
  }

  /** Takes bytes, for which room was acquired; copies them unless they are lent. */
  #take(
    offset: ByteOffset,
    source: Uint8Array,
    older: readonly BufferedWrite[],
    lent: Lent | undefined,
  ): Promise<void> | undefined {
    const length = source.byteLength;
    const areas = [this.#copyOnWrite.target, this.#isPlugged ? this.#incoming : undefined];
    const aside = this.#parked.isShort ? undefined : setAside(areas, offset, length);
    if (aside === undefined) {
      this.#counts.unbuffered++;
      this.#room.release(pooledSize(length));
      return this.#awaitedWrite(offset, source, lent);
    }
    const content = lent === undefined ? this.#pool.copyOf(source) : { lent, bytes: source };
    this.#add(new BufferedWrite(offset, length, ++this.#sequence, this.#epoch, content, aside), older);
    this.#counts.buffered++;
    return this.#turns.spend(length);
  }

  /**
   * Does something to a range, in order with what the buffer holds. It is acknowledged when it is done, not before.
   * @throws DeviceError, or what an earlier write-out has failed with
   */
  async change(offset: ByteOffset, length: ByteLength, run: AwaitedAction['run']): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    if (length > 0) await this.#awaited(offset, length, run);
  }

  /** Writes from the caller's memory, and gives it back. */
  async #awaitedWrite(offset: ByteOffset, source: Uint8Array, lent: Lent | undefined): Promise<void> {
    await this.#awaited(offset, source.byteLength, (device, at) => device.write(at, source));
    giveBack(lent);
  }

  #awaited(offset: ByteOffset, length: ByteLength, run: AwaitedAction['run']): Promise<void> {
    return new Promise((resolve, reject) => {
      const action = { run, resolve, reject };
      const write = new BufferedWrite(offset, length, ++this.#sequence, this.#epoch, action);
      this.#add(write, this.#index.overlapping(offset, offset + length));
    });
  }

  #add(write: BufferedWrite, older: readonly BufferedWrite[]): void {
    // It would wait for what waits for room.
    if (write.action !== undefined && older.length > 0 && this.#parked.isShort) {
      write.action.reject(this.#parked.error);
      return;
    }
    this.#active++;
    this.#index.add(write);
    for (const other of older) {
      write.blockers++;
      other.followers ??= [];
      other.followers.push(write);
    }
    if (this.#isPlugged) this.#plugged.push(write);
    this.#passIfFree(write);
  }

  #passIfFree(write: BufferedWrite): void {
    if (write.blockers > 0 || write.state !== 'kept' || write.epoch > this.#openEpoch) return;
    write.state = 'passed';
    const entered = this.#gate.enter();
    const pass = (shift: Shift) => {
      write.shift = shift;
      this.#protect(write);
    };
    if (typeof entered === 'number') pass(entered);
    // The gate is shut, or about to be. (It is never held while something may be passed on.)
    else entered.then(pass, (error: unknown) => this.#giveUp(write, error));
  }

  #protect(write: BufferedWrite): void {
    const copies = this.#copyOnWrite.protect(write.offset, write.length);
    const failed = (error: unknown) => this.#written(write, error);
    if (copies === undefined) this.#ready(write);
    else copies.then(() => this.#ready(write), failed);
  }

  #ready(write: BufferedWrite): void {
    const { action } = write;
    if (action === undefined) {
      this.#writeOuts.add(write);
      return;
    }
    write.state = 'writing';
    action.run(this.#device, write.offset, write.length).then(
      () => this.#written(write, undefined),
      (error: unknown) => this.#written(write, error),
    );
  }

  /** The volume has it, or an attempt has failed. */
  #written(write: BufferedWrite, error: unknown): void {
    if (error === undefined || write.action !== undefined) {
      this.#gate.leave(write.shift);
      this.#end(write, error);
    } else if (write.wasTriedAgain && isOutOfSpace(error)) {
      this.#park(write, error);
    } else if (write.wasTriedAgain) {
      this.#gate.leave(write.shift);
      this.#giveUp(write, error);
    } else {
      // Alone, and its copies from the beginning: one failure may be a passing one.
      write.wasTriedAgain = true;
      write.state = 'passed';
      this.#counts.retries++;
      this.#protect(write);
    }
  }

  #end(write: BufferedWrite, error: unknown): void {
    write.state = 'over';
    this.#index.remove(write);
    this.#parked.over(write);
    this.#release(write);
    releaseAside(write.aside);
    const { followers } = write;
    write.answer(error);
    this.#settled(write);
    for (const follower of followers ?? []) {
      follower.blockers--;
      this.#passIfFree(follower);
    }
  }

  /** There is no room on the host for a copy. It stays inside the gate: no snapshot can be taken meanwhile. */
  #park(write: BufferedWrite, error: unknown): void {
    // Others need the room: at most as much as the buffer holds is parked, because nothing more is acknowledged then.
    this.#uncount(write);
    // Nobody who was not acknowledged has to wait for it.
    for (const each of this.#parked.add(write, error)) this.#end(each, this.#parked.error);
  }

  /** An acknowledged change cannot reach the volume. It stays for readers, and so does what it blocks. */
  #giveUp(write: BufferedWrite, error: unknown): void {
    if (this.#failure === undefined) {
      this.#failure =
        error instanceof AssertionError
          ? error
          : new DeviceError(
              `a write that was acknowledged, ${write.length} bytes at offset ${write.offset}, cannot be written to ${this.#device.name}; every flush and every change is refused now. Mend what the cause names, close the volume and open it again`,
              { cause: error },
            );
      // Nobody gets room any more; those who wait hear why.
      this.#room.open();
    }
    this.#stick(write, error);
  }

  #stick(write: BufferedWrite, error: unknown): void {
    if (write.state === 'stuck') return;
    write.state = 'stuck';
    this.#parked.over(write);
    write.action?.reject(this.#failure ?? error);
    this.#settled(write);
    for (const follower of write.followers ?? []) this.#stick(follower, error);
  }

  #settled({ sequence }: BufferedWrite): void {
    this.#active--;
    this.#drains.settled(sequence);
  }

  #release(write: BufferedWrite): void {
    if (--write.holders > 0 || write.lent === undefined) return;
    this.#uncount(write);
    giveBack(write.lent);
  }

  #uncount(write: BufferedWrite): void {
    if (write.isCounted) this.#room.release(pooledSize(write.length));
    write.isCounted = false;
  }

  /** Nothing is tried again by itself any more. */
  readonly close = (): void => this.#parked.close();

  /** Fills `target` with the volume as it is now. @throws DeviceError */
  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#reads.read(offset, target);
  }

  allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    return this.#reads.allocation(offset, length);
  }

  /** Resolves when every change made so far is in the volume. @throws what a write-out has failed with, NoSpaceError (see `#park`) */
  async drained(): Promise<void> {
    this.#parked.tryAgain();
    if (this.#active > 0) await this.#parked.orParked(this.#drains.wait(this.#sequence, this.#active));
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#parked.count > 0) throw this.#parked.error;
  }

  /** Makes every change acknowledged so far durable. @throws DeviceError */
  async flush(): Promise<void> {
    await this.drained();
    await this.#device.flush();
  }

  /** Before and after a snapshot is taken: how much may gather. */
  set level(level: RoomLevel) {
    this.#room.level = level;
    this.#turns.short = level !== 'usual';
  }

  /** From now on changes are taken, but not passed on; `drained` then waits for what is older. One at a time. */
  plug(incoming: DiffArea | undefined): void {
    assert(!this.#isPlugged, () => 'the write buffer is plugged already');
    this.#epoch++;
    this.#incoming = incoming;
    this.level = 'all';
  }

  /** Passes on what has gathered. */
  unplug(): void {
    assert(this.#isPlugged, () => 'the write buffer is not plugged');
    this.#openEpoch = this.#epoch;
    this.#incoming = undefined;
    this.level = 'usual';
    const gathered = this.#plugged;
    this.#plugged = [];
    for (const write of gathered) this.#passIfFree(write);
  }
}
