/** What the server serves: the seam between the NBD protocol and whatever holds the bytes. */
import type { Lent } from '../../device/buffer-pool.js';
import type { ByteLength, ByteOffset } from '../../units.js';
import type { StatusExtent } from '../wire/block-status.js';

export interface NbdExport {
  /** As the list of exports names it; clients may have asked by a shorter name. */
  readonly name: string;
  /** For people; may be empty. */
  readonly description: string;
  /** Bytes; constant while anybody uses the export. */
  readonly size: ByteLength;
  readonly writable: boolean;
  /** Zeroing a long range costs less than writing it. */
  readonly zeroesFast: boolean;
  readonly contexts: StatusContexts;

  /** Fills `target`. The range lies within `size`; so it does below. */
  read(offset: ByteOffset, target: Uint8Array): Promise<unknown>;
  /** `source` belongs to the export until the promise settles. Never called where not `writable`; so below. */
  write(offset: ByteOffset, source: Uint8Array): Promise<void>;
  /**
   * The same, if the export would keep the bytes beyond its answer: `source`, in `lent`, is its own from the call on.
   * @returns `undefined` if it is done already
   */
  take?(offset: ByteOffset, source: Uint8Array, lent: Lent): Promise<void> | undefined;
  /** `keepAllocated`: the range must not become a hole. */
  writeZeroes(offset: ByteOffset, length: ByteLength, keepAllocated: boolean): Promise<void>;
  discard(offset: ByteOffset, length: ByteLength): Promise<void>;
  /** Everything acknowledged before, on any connection, is on stable storage when it resolves. */
  flush(): Promise<void>;
  /** Called once for each successful `ExportCatalog.open`, when its connection is over. */
  release(): void;
}

/** The metadata contexts of an export. */
export interface StatusContexts {
  /** Names to show for a query, whole where it is shortened; without one all, where one may stand for many (`volsnap:changed:`). */
  list(query?: string): readonly string[];
  /** The contexts that a query selects, named as it says; none if it names nothing known. */
  select(query: string): readonly StatusContext[];
}

export interface StatusContext {
  /** For example `base:allocation`. */
  readonly name: string;
  /**
   * The status of consecutive bytes from `offset` on, of at least one extent and in all of no more than `length` bytes, unless
   * the last one is known to be longer. The caller stops when it has enough.
   */
  extents(offset: ByteOffset, length: ByteLength): AsyncIterable<StatusExtent> | Iterable<StatusExtent>;
}

/** The exports there are; they come and go. */
export interface ExportCatalog {
  list(): readonly { readonly name: string; readonly description: string }[];
  /** @returns `undefined` if there is no export of that name */
  open(name: string): Promise<NbdExport | undefined>;
}
