/**
 * Writing to a snapshot: the sectors go to a slot of its own diff area, where only readers of this very snapshot find them.
 *
 *     write ──► block by block: slot reserved ──► sectors written ──► shown to readers, acknowledged
 *     flush ──► commit pool: entries of all that is new ──► flush ──► header ──► flush
 *
 * A write is acknowledged before it is durable, as by the volatile cache of a disk; after a crash each sector of it that was not
 * flushed holds what was there before, or the new bytes. Neither a copy of the volume nor another snapshot is ever touched.
 *
 * Shared state: the queue of each block, changed between awaits only; it lets one reader or writer at a time at the block's slot.
 * The table chain is changed by the commit pool, which has one worker, while the record's `resizing` is held: of a
 * snapshot that takes no copies any more it is also changed in the background.
 */
import type { Pools } from '../copy-on-write/pools.js';
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { type Piece, piecesOf, type SectorBits, sectorsOfRange } from '../diff-area/overlays.js';
import { assert, RevertInProgressError } from '../errors.js';
import {
  type BlockNumber,
  type ByteOffset,
  offsetOfBlock,
  roundUp,
  SECTOR_SIZE,
  type Slot,
} from '../units.js';
import type { SnapshotChain } from './chain.js';
import { flushOverlays } from './flush-overlays.js';
import { readSnapshot } from './reader.js';
import type { SnapshotRecord } from './record.js';
import type { Space } from './space.js';

/** The parts of the engine that writing to a snapshot works with. */
export interface WritesContext {
  readonly device: BlockDevice;
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly pools: Pools;
}

/** Blocks that one call works on at a time. */
const BLOCKS_AT_ONCE = 32;

export class SnapshotWrites {
  readonly #context: WritesContext;
  readonly #record: SnapshotRecord;
  readonly #area: DiffArea;
  /** Of each block whose slot is in use, when that is over. */
  readonly #queues = new Map<BlockNumber, Promise<void>>();
  /** A flush that has not begun: whoever flushes now waits for it. */
  #nextFlush: Promise<void> | undefined;

  constructor(context: WritesContext, record: SnapshotRecord, area: DiffArea) {
    this.#context = context;
    this.#record = record;
    this.#area = area;
  }

  /**
   * Resolves when readers see the bytes. Below a sector the rest of it is read first.
   * @throws RevertInProgressError; NoSpaceError, SnapshotDeletedError, IntegrityError, DeviceError: then each sector holds the old bytes or the new
   */
  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    const record = this.#record;
    // What the volume goes back to, or back from, may not change.
    if (this.#context.chain.keeping.isNeeded(record))
      throw new RevertInProgressError(
        `snapshot ${record.id} can only be read while the volume is put back to it or an older one; wait for that, or cancel it`,
      );
    await record.whileWriting(() => each(piecesOf(offset, source), (piece) => this.#writePiece(piece)));
  }

  /** Lays what was written over `target`, which holds the snapshot without it from `offset` on. @throws DeviceError */
  async layOver(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const { overlays } = this.#area;
    if (overlays.isEmpty) return;
    await each(piecesOf(offset, target), ({ block, from, bytes }) =>
      overlays.sectorsOf(block) === 0
        ? undefined
        : this.#alone(block, () => overlays.layOver(block, from, bytes)),
    );
  }

  /** Makes every write acknowledged before durable. @throws SnapshotDeletedError, DeviceError */
  flush(): Promise<void> {
    this.#nextFlush ??= this.#flush();
    return this.#nextFlush;
  }

  async #flush(): Promise<void> {
    // First of all: the pool may begin at once, before anybody knows of this flush.
    await Promise.resolve();
    await flushOverlays(this.#context.pools, this.#record, () => {
      this.#nextFlush = undefined;
    });
  }

  /** Runs `action` when nobody else reads or writes the slot of `block`. */
  async #alone(block: BlockNumber, action: () => Promise<void>): Promise<void> {
    const before = this.#queues.get(block);
    const turn = before === undefined ? action() : before.then(action);
    const over = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#queues.set(block, over);
    try {
      await turn;
    } finally {
      if (this.#queues.get(block) === over) this.#queues.delete(block);
    }
  }

  async #writePiece(piece: Piece): Promise<void> {
    const { block } = piece;
    const { from, to } = wholeSectors(piece);
    const sectors = sectorsOfRange(from, to);
    // Before anything that readers wait for: room may only be there when a snapshot has gone, and its last readers with it.
    const reserved = await this.#reserve(block, sectors);
    let unused = reserved;
    try {
      await this.#record.whileReading(() =>
        this.#alone(block, async () => {
          const data = await this.#filledUp(piece);
          const known = this.#area.overlays.slotOf(block);
          const slot = known === -1 ? reserved.slots[0] : known;
          assert(slot !== undefined, () => `no slot for block ${block}`);
          await this.#area.overlays.write(slot, from, data);
          unused = this.#show(block, slot, sectors, reserved);
        }),
      );
    } finally {
      this.#area.cancel(unused.slots, unused.entries);
    }
  }

  /** Lets readers see what was written. @returns what is left of the reservation */
  #show(block: BlockNumber, slot: Slot, sectors: SectorBits, reserved: Reservation): Reservation {
    // One entry will name all that is new when somebody flushes.
    const needsEntry = this.#area.overlays.show(block, slot, sectors);
    assert(!needsEntry || reserved.entries > 0, () => `no entry promised for block ${block}`);
    return {
      slots: reserved.slots.filter((other) => other !== slot),
      entries: needsEntry ? reserved.entries - 1 : reserved.entries,
    };
  }

  /** The bytes of the piece with the rest of its first and last sector, which is the snapshot's. */
  async #filledUp(piece: Piece): Promise<Uint8Array> {
    const { block, from, bytes } = piece;
    const { from: start, to: end } = wholeSectors(piece);
    if (end - start === bytes.byteLength) return bytes;
    const whole = new Uint8Array(end - start);
    const offset = offsetOfBlock(block) + start;
    const { chain, device } = this.#context;
    // What lies beyond the end of a volume that is no whole number of sectors is nobody's.
    const inside = whole.subarray(0, Math.min(whole.byteLength, this.#record.item.volumeSize - offset));
    await readSnapshot(() => chain.areasFrom(this.#record), device, offset, inside);
    await this.#area.overlays.layOver(block, start, inside);
    whole.set(bytes, from - start);
    return whole;
  }

  /** What writing the sectors may need: a slot, and room for an entry. @throws NoSpaceError, SnapshotDeletedError, DeviceError */
  async #reserve(block: BlockNumber, sectors: SectorBits): Promise<Reservation> {
    const { overlays } = this.#area;
    for (;;) {
      this.#record.checkExists();
      if ((sectors & ~overlays.sectorsOf(block)) === 0) return { slots: [], entries: 0 };
      const count = overlays.slotOf(block) === -1 ? 1 : 0;
      const slots = this.#area.reserve(count, 1);
      if (slots !== undefined) return { slots, entries: 1 };
      await this.#context.space.makeRoomForOverlay(this.#record, this.#area, count);
    }
  }
}

/** Room in the diff area that nothing else will take. */
interface Reservation {
  readonly slots: readonly Slot[];
  readonly entries: number;
}

/** The whole sectors that a piece touches, as bytes of the block. */
const wholeSectors = ({ from, bytes }: Piece): { from: number; to: number } => ({
  from: Math.floor(from / SECTOR_SIZE) * SECTOR_SIZE,
  to: roundUp(from + bytes.byteLength, SECTOR_SIZE),
});

/** Runs `action` on all pieces, some at a time; settles when all have. @throws what the first that failed threw */
async function each(
  pieces: Iterable<Piece>,
  action: (piece: Piece) => Promise<void> | undefined,
): Promise<void> {
  const failures: unknown[] = [];
  const running = new Set<Promise<void>>();
  for (const piece of pieces) {
    const started = action(piece);
    if (started === undefined) continue;
    const settled = started
      .catch((error: unknown) => void failures.push(error))
      .then(() => void running.delete(settled));
    running.add(settled);
    if (running.size >= BLOCKS_AT_ONCE) await Promise.race(running);
    if (failures.length > 0) break;
  }
  await Promise.all(running);
  if (failures.length > 0) throw failures[0];
}
