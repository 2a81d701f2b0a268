/** Short histories of a cached device, every crash of which is tried by `exhaustive.ts`. Offsets and lengths are units of 4 KiB. */

/** What one client does, one after the other. */
export type CacheOperation =
  | { readonly kind: 'read' | 'write' | 'discard' | 'drop'; readonly at: number; readonly units: number }
  | { readonly kind: 'flush' | 'commit' | 'compact' };

export interface CacheHistory {
  readonly name: string;
  /** Done before; at the end of each it is closed, or power fails. */
  readonly before?: readonly {
    readonly operations: readonly CacheOperation[];
    readonly end: 'close' | 'power-cut';
  }[];
  /** Done after it was opened again, without a crash. */
  readonly opened?: readonly CacheOperation[];
  /** What crashes: what several clients do at once, or the opening, also with another state of the backing; or the closing. */
  readonly explored: readonly (readonly CacheOperation[])[] | 'opening' | 'opening another' | 'closing';
}

const read = (at: number, units: number): CacheOperation => ({ kind: 'read', at, units });
const write = (at: number, units: number): CacheOperation => ({ kind: 'write', at, units });
const discard = (at: number, units: number): CacheOperation => ({ kind: 'discard', at, units });
const drop = (at: number, units: number): CacheOperation => ({ kind: 'drop', at, units });
const flush: CacheOperation = { kind: 'flush' };
const commit: CacheOperation = { kind: 'commit' };
const compact: CacheOperation = { kind: 'compact' };

/** All that is cached, in a few extents. */
const filled = { operations: [read(0, 8), read(20, 4)], end: 'close' } as const;

export const CACHE_HISTORIES: readonly CacheHistory[] = [
  { name: 'what is read is cached', explored: [[read(0, 2), commit]] },
  { name: 'what is cached is written over', before: [filled], explored: [[write(2, 1), flush]] },
  {
    name: 'written and committed, and written again',
    before: [filled],
    explored: [[write(2, 1), commit, write(2, 1)]],
  },
  { name: 'a commit while it is written over', before: [filled], explored: [[write(2, 1)], [commit]] },
  {
    name: 'two commits while it is written over',
    before: [filled],
    explored: [
      [write(2, 1), write(4, 1)],
      [commit, commit],
    ],
  },
  { name: 'evicted, then written', before: [filled], explored: [[drop(0, 8), write(2, 1), flush]] },
  {
    name: 'evicted while a commit goes on, then written',
    before: [filled],
    explored: [[drop(0, 8), write(2, 1)], [commit]],
  },
  {
    name: 'evicted, and its place taken by another',
    before: [filled],
    explored: [[drop(0, 8), commit, read(12, 2), commit]],
  },
  { name: 'discarded', before: [filled], explored: [[discard(1, 2), commit]] },
  {
    name: 'read while it is written',
    before: [filled],
    explored: [[write(2, 1)], [read(2, 1), read(12, 1)]],
  },
  { name: 'compacted', before: [filled], opened: [drop(0, 6), commit], explored: [[compact]] },
  { name: 'closed', before: [filled], opened: [write(2, 1), read(12, 1)], explored: 'closing' },
  {
    name: 'opened after a crash with regions in doubt',
    before: [filled, { operations: [write(2, 1), write(20, 1)], end: 'power-cut' }],
    explored: 'opening',
  },
  { name: 'opened with another backing', before: [filled], explored: 'opening another' },
];
