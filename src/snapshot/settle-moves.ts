/**
 * Ends the moves of a snapshot: what moved away is copied into its own diff area.
 *
 * For the newest that is what happens before the target is overwritten, and is done the same way. Of any other the content is read
 * as its readers would, and the entry of the copy names the target: by the rules of the format it is the source's, and the move is spent.
 * A crash leaves some moves spent, and the others as they were.
 *
 * A second copy of a target would be taken for the target's own. So once its entry is in the table, written or not, the move counts as spent.
 */
import { allDone } from '../all-done.js';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import { isZeros } from '../device/zeros.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Move } from '../diff-area/moves.js';
import type { Copies } from '../diff-area/table-writer.js';
import { NoSpaceError } from '../errors.js';
import { BLOCK_SIZE, offsetOfBlock, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import { readSnapshot } from './reader.js';
import type { SnapshotRecord } from './record.js';
import type { Space } from './space.js';

/** The parts of the engine that settling moves works with. */
export interface SettleContext {
  readonly device: BlockDevice;
  readonly gate: WriteGate;
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly pools: Pools;
  readonly copyOnWrite: CopyOnWrite;
}

/** Copies made at once: 4 MiB. */
const GROUP_MAX = 256;

/**
 * Resolves when the snapshot has no moves any more, durably, or is gone. No new ones may come meanwhile.
 * @throws NoSpaceError, IntegrityError, DeviceError; those that are left are as they were
 */
export async function settleMoves(context: SettleContext, record: SnapshotRecord): Promise<void> {
  const { area } = record;
  if (area === undefined) return;
  while (!area.moves.isEmpty && record.deleted === undefined) {
    const moves = area.moves.some(GROUP_MAX);
    if (!(await hasRoom(context, record, area, moves.length))) return;
    if (context.copyOnWrite.target === area) await protectTargets(context, moves);
    else await copyGroup(context, record, area, moves);
  }
  if (area.moves.isInDoubt) await commit(context, record, area, undefined);
}

/**
 * Makes room for as many copies. Nothing is given up for it, whatever the policy: a deletion must not cost another snapshot, least of
 * all one at an opening, of which nobody could be told.
 * @returns false if the snapshot is gone
 * @throws NoSpaceError
 */
async function hasRoom(
  { space }: SettleContext,
  record: SnapshotRecord,
  area: DiffArea,
  count: number,
): Promise<boolean> {
  if (await space.roomToMerge(record, area, { slots: count, entries: count, ahead: 0 })) return true;
  if (record.isGone) return false;
  throw new NoSpaceError(
    `${count} blocks that moved within the volume (copyRange) have to be copied into snapshot ${record.id} first, and there is no room; delete an older one, or give the store more with: volsnap resize-store`,
  );
}

/** As a write of the targets would. The room is there, unless other writes are faster: then the policy says what they, and this, do. */
async function protectTargets({ gate, copyOnWrite }: SettleContext, moves: readonly Move[]): Promise<void> {
  const entered = gate.enter();
  const shift = typeof entered === 'number' ? entered : await entered;
  try {
    const copies = moves.map(({ to }) => copyOnWrite.protect(offsetOfBlock(to), BLOCK_SIZE));
    await allDone(copies);
  } finally {
    gate.leave(shift);
  }
}

async function copyGroup(
  context: SettleContext,
  record: SnapshotRecord,
  area: DiffArea,
  moves: readonly Move[],
): Promise<void> {
  const count = moves.length;
  const slots = area.reserve(count, count);
  if (slots === undefined) return; // others were faster
  let copies: Copies;
  try {
    copies = await record.whileReading(() => copyData(context, record, area, moves, slots));
  } catch (error) {
    area.cancel(slots, count);
    throw error;
  }
  area.cancel(
    slots.filter((slot) => !copies.slots.includes(slot)),
    0,
  );
  await commit(context, record, area, { copies, moves });
}

async function copyData(
  { chain, device }: SettleContext,
  record: SnapshotRecord,
  area: DiffArea,
  moves: readonly Move[],
  reserved: readonly Slot[],
): Promise<Copies> {
  const data = await Promise.all(
    moves.map(async ({ from }) => {
      const block = new Uint8Array(BLOCK_SIZE);
      await readSnapshot(() => chain.areasFrom(record), device, offsetOfBlock(from), block);
      return block;
    }),
  );
  const slots = data.map((block, i) => (isZeros(block) ? FixedSlot.zeros : (reserved[i] ?? 0)));
  const stored = data.flatMap((block, i) => (slots[i] === FixedSlot.zeros ? [] : [block]));
  await area.writeData(
    slots.filter((slot) => slot !== FixedSlot.zeros),
    stored,
  );
  const blocks = moves.map(({ to }) => to);
  return {
    blocks,
    slots,
    checksums: data.map((block, i) => area.checksum(blocks[i] ?? 0, slots[i] ?? 0, block)),
  };
}

interface Group {
  readonly copies: Copies;
  readonly moves: readonly Move[];
}

/** Enters copies, unless others did so, and makes all that was entered durable. */
async function commit(
  { pools }: SettleContext,
  record: SnapshotRecord,
  area: DiffArea,
  group: Group | undefined,
): Promise<void> {
  await pools.commit.add(() =>
    record.whileThere(() =>
      // Who compares the diff area with its device holds this too.
      record.resizing.runExclusive(async () => {
        if (group !== undefined) enter(area, group);
        await area.writeEntries();
        await area.flush();
        area.moves.isInDoubt = false;
      }),
    ),
  );
}

function enter(area: DiffArea, { copies, moves }: Group): void {
  if (moves.some(({ from, to }) => area.moves.sourceOf(to) !== from)) {
    area.cancel(
      copies.slots.filter((slot) => slot !== FixedSlot.zeros),
      moves.length,
    );
    return;
  }
  area.append([copies]);
  area.moves.isInDoubt = true;
  area.publish(copies);
}
