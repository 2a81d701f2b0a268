/** Recording, in the newest snapshot, where content of its blocks lies besides. Shared state: `#underWay`, changed between awaits only. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { type Move, mayMove, moveEntry } from '../diff-area/moves.js';
import { type Attempts, ifNoSpace } from './attempts.js';
import { Batch } from './batch.js';
import type { CopyFigures } from './copy-host.js';
import type { Pools } from './pools.js';

export interface MoveRecordsParts {
  readonly pools: Pools;
  readonly attempts: Attempts;
  readonly figures: CopyFigures;
  /** Sets room for entries aside; `undefined` if nobody needs them any more. @throws NoSpaceError */
  readonly reserve: (area: DiffArea, entries: number) => Promise<unknown>;
  readonly takesMoves: (area: DiffArea) => boolean;
}

export class MoveRecords {
  readonly #parts: MoveRecordsParts;
  readonly #underWay = new Set<Batch>();

  constructor(parts: MoveRecordsParts) {
    this.#parts = parts;
  }

  /** Moves that are being recorded: batches without blocks. */
  get underWay(): Iterable<Batch> {
    return this.#underWay;
  }

  /**
   * Records, durably, that content was copied within the volume, so that its sources need no copy. Nothing else is being
   * written, the targets are protected, and what they hold now is on stable storage.
   * @throws if not even the snapshot can be given up; then the targets are kept for their sources, which get no benefit
   */
  async commit(area: DiffArea, moves: readonly Move[]): Promise<void> {
    const { pools, attempts, figures, reserve, takesMoves } = this.#parts;
    if (moves.length === 0 || (await reserve(area, moves.length).catch(ifNoSpace)) === undefined) return;
    const batch = new Batch(area);
    this.#underWay.add(batch);
    let recorded: readonly Move[] | undefined;
    const record = async () => {
      if (!takesMoves(area) || area.moves.isBarred) return false;
      // What was merged meanwhile may have brought copies of the sources.
      const possible = moves.filter((move) => mayMove(area, move));
      if (possible.length < (recorded?.length ?? 1)) return false;
      if (recorded === undefined) area.appendEntries(possible.map(moveEntry));
      recorded ??= possible;
      await area.flushProven();
      area.publishUncommitted();
      for (const move of recorded) area.moves.add(move);
      figures.movedBlocks += recorded.length;
      return true;
    };
    // The pool is not kept while the host decides: see `CopyOnWrite`.
    const inPool = async () => (await pools.commit.add(record)) === true;
    const committed = await attempts.make([batch], inPool);
    if (committed) batch.finish();
    else for (const move of recorded ?? []) area.moves.addInDoubt(move);
    area.cancel([], moves.length - (recorded?.length ?? 0));
    this.#underWay.delete(batch);
    await batch.done;
  }
}
