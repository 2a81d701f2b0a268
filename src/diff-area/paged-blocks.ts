/** Walks over sets of blocks, a page of 4,096 at a time. What lies between pages that have any costs nothing, however much it is. */

/** Something that has blocks, page by page: a table, what is skipped. */
export interface PagedBlocks {
  hasPage(page: number): boolean;
  /** The first page from `page` on that has any. */
  pageFrom(page: number): number | undefined;
  /** Sets, in a bitmap of one page, the bits of the blocks that it has. */
  addPresence(page: number, bitmap: Uint32Array): void;
}

/** The first page from `page` on in which any of them has a block. */
export function firstPageOf(all: readonly PagedBlocks[], page: number): number | undefined {
  // Where blocks lie close together the next page mostly has some.
  if (all.some((blocks) => blocks.hasPage(page))) return page;
  let first: number | undefined;
  for (const blocks of all) {
    const found = blocks.pageFrom(page + 1);
    if (found !== undefined && (first === undefined || found < first)) first = found;
  }
  return first;
}

/** The first number of an ascending list that is `least` or more. */
export function firstFrom(ascending: readonly number[], least: number): number | undefined {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] ?? least) < least) low = middle + 1;
    else high = middle;
  }
  return ascending[low];
}

/** Pages from `page` on, below `end`, in which any of them has a block. Each is looked for when it is asked for. */
export function* pagesOf(
  all: readonly PagedBlocks[],
  page: number,
  end: number,
): Generator<number, undefined> {
  for (let next = firstPageOf(all, page); next !== undefined && next < end; next = firstPageOf(all, next + 1))
    yield next;
}
