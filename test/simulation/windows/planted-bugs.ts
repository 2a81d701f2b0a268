/**
 * Bugs in writing to volumes of Windows that the simulation has to find; see `planted.ts`. Two others it meets too seldom: that a new table
 * block is linked before it is written, which `crash-states.test.ts` finds, and that opening does not flush, which a unit test does.
 */
import type { Edit } from '../planted/bug.js';

export interface WindowsBug {
  readonly name: string;
  readonly edits: readonly Edit[];
  /** What the simulation is asked for besides. */
  readonly options?: readonly string[];
}

const bug = (name: string, file: string, find: string, replace: string): WindowsBug => ({
  name,
  edits: [{ file: `windows/${file}`, find, replace }],
});

/** In a store of volsnap that takes shadow copies over. */
const takingOver = (name: string, file: string, find: string, replace: string): WindowsBug => ({
  name,
  edits: [{ file, find, replace }],
  options: ['--take-over'],
});

const FRESH = '    for (const { offset, bytes } of fresh) await this.#device.write(offset, bytes);\n';
const LINKED = '    for (const { offset, bytes } of linked) await this.#device.write(offset, bytes);\n';
const FLUSH = '    await this.#device.flush();\n';

export const WINDOWS_BUGS: readonly WindowsBug[] = [
  bug(
    'copies are not flushed before their entries are written',
    'foreign-copies.ts',
    `${FRESH}${FLUSH}`,
    FRESH,
  ),
  bug(
    'entries are not flushed before the block is overwritten',
    'foreign-copies.ts',
    `${LINKED}${FLUSH}`,
    LINKED,
  ),
  bug(
    'a second write does not wait for the copy under way',
    'foreign-copies.ts',
    'if (group !== undefined) waits.add(group);',
    'if (group !== undefined) continue;',
  ),
  bug(
    'a reader does not look again',
    'foreign-snapshot.ts',
    'if (newest.generation === generation) return;',
    'if (newest.generation >= generation) return;',
  ),
  bug(
    'what moved to a block is forgotten',
    'needed-blocks.ts',
    'const isTarget = table.isMoveTarget(block);',
    'const isTarget = table.isMoveTarget(block) && block < 0;',
  ),
  bug(
    'the target of a move is not kept for itself',
    'needed-blocks.ts',
    'return isTarget ? (isOwn ? 2 : 1)',
    'return isTarget ? 1',
  ),
  bug(
    'older shadow copies are not asked about unused blocks',
    'needed-blocks.ts',
    'for (const { table, unused } of this.#older) {',
    'for (const { table, unused } of this.#older.slice(0, 0)) {',
  ),
  bug(
    'table blocks are not reckoned with',
    'copy-target.ts',
    'wanted + this.writer.blocksFor(this.#entries + entries) > this.slots.count',
    'wanted > this.slots.count',
  ),
  bug(
    'a slot in use is taken to be free',
    'store-layout.ts',
    'end = Math.max(end, fileOffset + (last + 1 - firstBlock) * BLOCK_SIZE);',
    'end = Math.max(end, fileOffset + (last - firstBlock) * BLOCK_SIZE);',
  ),
  bug(
    'stores may be overwritten',
    'store-guard.ts',
    'return own === undefined ? undefined : { offset: offsetOfBlock(own), isOwn: true };',
    'return undefined;',
  ),
  bug(
    'the newest goes first',
    'foreign-removals.ts',
    'const [oldest, ...others] = this.#left;',
    'const oldest = this.#left.at(-1);\n      const others = this.#left.slice(0, -1);',
  ),
  takingOver(
    'the start block is not held back',
    'store/held-start.ts',
    'if (isStart(offset, source)) this.#start = source.slice();\n    else await',
    'if (isStart(offset, source)) this.#start = source.slice();\n    await',
  ),
  takingOver(
    'what shadow copies need of the reserve is not copied',
    'volume/taking-over.ts',
    'if (reserve.total > 0) await emptyReserve',
    'if (reserve.total < 0) await emptyReserve',
  ),
  takingOver(
    'the base is not held',
    'volume/taking-over.ts',
    "if (shadowCopies === 'keep') await engine",
    "if (shadowCopies === 'drop') await engine",
  ),
  takingOver(
    'the base goes before what is read through it',
    'snapshot/chain.ts',
    'await this.#elders.removeOldest(Infinity, reason, cause);',
    '',
  ),
  takingOver(
    'the base may be deleted',
    'snapshot/chain.ts',
    'if (index === 0 && this.#elders.count > 0)',
    'if (index === 0 && this.#elders.count < 0)',
  ),
  takingOver(
    'shadow copies are read through the volume',
    'volume/taken-over.ts',
    'readSnapshot(() => chain.areasFrom(record), device',
    'readSnapshot(() => chain.areasFrom(record).slice(0, 0), device',
  ),
  takingOver(
    'shadow copies are read through the base alone',
    'volume/taken-over.ts',
    'chain.areasFrom(record), device',
    'chain.areasFrom(record).slice(0, 1), device',
  ),
  takingOver(
    'stores of shadow copies may be written',
    'snapshot/protected-blocks.ts',
    'if (!isStore && !elders.areWithin(offset, length)) return undefined;',
    'if (!isStore) return undefined;',
  ),
  takingOver(
    'stores of shadow copies may be cleared',
    'snapshot/protected-blocks.ts',
    'return this.#context.elders.areWithin(offset, length) ?',
    'return this.#context.elders.areWithin(0, 0) ?',
  ),
  takingOver(
    'of the shadow copies the newest goes first',
    'windows/foreign-removals.ts',
    'const [oldest, ...others] = this.#left;',
    'const oldest = this.#left.at(-1);\n      const others = this.#left.slice(0, -1);',
  ),
  takingOver(
    'the volume leads to the catalog that its copies cannot show',
    'volume/taking-over.ts',
    '    clearCatalogOffset(sector);\n',
    '',
  ),
  takingOver(
    'a revert to the base leads to the catalog again',
    'snapshot/put-back.ts',
    'if (isBase && meetsCatalogOffset',
    'if (!isBase && meetsCatalogOffset',
  ),
];
