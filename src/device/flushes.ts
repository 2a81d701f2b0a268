/**
 * The flushes of one file.
 *
 * They run one at a time: Linux reports a failed write-back to one fdatasync of a descriptor only, so of two at once the second
 * could succeed after the loss of a write that its caller relies on. For the same reason one that has failed stays: everything behind it
 * fails too.
 *
 * Some begin before anybody asks. What is written waits in the page cache until somebody flushes, who then waits for all of it, while the
 * disk has been idle. A flush begun after some of it was written runs beside the writing of the rest. Only long and sequential writes
 * count, and what its writer says will not be written again soon: of others the disk gets fewer the longer they wait.
 *
 * Shared state: changes between awaits only.
 */
import type { ByteLength, ByteOffset } from '../units.js';

/** Bytes after which a flush is due: some 50 ms of a fast disk. */
const EARLY: ByteLength = 32 * 1024 * 1024;
/** The same of what its writer says will not be written again soon: often single blocks, all over the disk. While these are written others have to wait. */
const SETTLED: ByteLength = 8 * 1024 * 1024;
/** A write from this length on counts wherever it is. */
const LONG: ByteLength = 262_144;

export class Flushes {
  readonly #datasync: () => Promise<void>;
  readonly #early: () => void;
  /** The one under way or the last one. */
  #current: Promise<void> = Promise.resolve();
  /** The one that has not begun yet, shared by all who wait for it. */
  #next: Promise<void> | undefined;
  /** Bytes written since a flush began, as far as they count, and where the last write ended. */
  #bytes: ByteLength = 0;
  #end: ByteOffset = -1;
  /** Bytes since then of which their writer has said so. */
  #settling: ByteLength = 0;

  /** @param early flushes as others do, and leaves a failure to them: it stays */
  constructor(datasync: () => Promise<void>, early: () => void) {
    this.#datasync = datasync;
    this.#early = early;
  }

  /** Resolves when everything written before is durable. @throws what `datasync` throws, from the first failure on */
  flush(): Promise<void> {
    this.#next ??= this.#current.then(() => {
      this.#next = undefined;
      this.#bytes = 0;
      this.#settling = 0;
      this.#current = this.#datasync();
      return this.#current;
    });
    return this.#next;
  }

  /** A range was written. */
  written(offset: ByteOffset, length: ByteLength): void {
    const counts = length >= LONG || offset === this.#end;
    this.#end = offset + length;
    if (!counts) return;
    this.#bytes += length;
    this.#flushIfDue();
  }

  /** So many bytes, of whatever was written, will not be written again soon. */
  settling(length: ByteLength): void {
    this.#settling += length;
    this.#flushIfDue();
  }

  #flushIfDue(): void {
    const isDue = this.#bytes >= EARLY || this.#settling >= SETTLED;
    if (isDue && this.#next === undefined) this.#early();
  }
}
