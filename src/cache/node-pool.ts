/**
 * Memory of nodes: taken in large pieces, and used again. What a node takes outside the heap would else pile up until the collector looks, and leave holes
 * that are of no use to anybody.
 *
 * Shared state: changed between awaits only. Who gives columns back must not look at them any more.
 */
import { type AnyColumns, emptyColumns, emptyLinks, type NodeMemory, wordsOf } from '../format/vci-node.js';

/** Nodes whose memory is taken at once: from the first piece on, twice as many, up to a limit. */
const FIRST_PIECE = 4;
const PIECE_MAX = 128;

export class NodePool implements NodeMemory {
  readonly links = emptyLinks();
  /** There are never more than were in use at once, and a piece. */
  readonly #free: Record<AnyColumns['kind'], AnyColumns[]> = { internal: [], leaf: [] };
  readonly #piece: Record<AnyColumns['kind'], number> = { internal: FIRST_PIECE, leaf: FIRST_PIECE };

  take(kind: AnyColumns['kind']): AnyColumns {
    const free = this.#free[kind];
    if (free.length === 0) this.#takePiece(kind);
    const columns = free.pop() ?? emptyColumns(kind);
    columns.size = 0;
    return columns;
  }

  #takePiece(kind: AnyColumns['kind']): void {
    const count = this.#piece[kind];
    this.#piece[kind] = Math.min(PIECE_MAX, 2 * count);
    const words = new Uint32Array(count * wordsOf(kind));
    for (let at = 0; at < words.length; at += wordsOf(kind))
      this.#free[kind].push(emptyColumns(kind, words, at));
  }

  give(columns: AnyColumns): void {
    this.#free[columns.kind].push(columns);
  }
}
