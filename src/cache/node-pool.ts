/**
 * Memory of nodes that is used again. A node that is read or copied takes a kilobyte outside the heap; left to the collector those would pile up to many
 * times of what is in use before it looks.
 *
 * Shared state: changed between awaits only. Who gives columns back must not look at them any more.
 */
import { type AnyColumns, emptyColumns, emptyLinks, type NodeMemory } from '../format/vci-node.js';

export class NodePool implements NodeMemory {
  readonly links = emptyLinks();
  /** There are never more than were in use at once. */
  readonly #free: Record<AnyColumns['kind'], AnyColumns[]> = { internal: [], leaf: [] };

  take(kind: AnyColumns['kind']): AnyColumns {
    const columns = this.#free[kind].pop() ?? emptyColumns(kind);
    columns.size = 0;
    return columns;
  }

  give(columns: AnyColumns): void {
    this.#free[columns.kind].push(columns);
  }
}
