/**
 * Which backing it is that an image caches, and in which state: what tells whether the image may be used with it.
 *
 * A modification UUID that somebody gives says it for certain. Else the time of the last change stands in, where the backing has one (files do, NBD exports
 * do not), as recorded with the last commit; after a crash it is that of the commit only if nothing was written since. And always the size and, without a UUID, the name.
 */
import { createHash } from 'node:crypto';
import type { BlockDevice } from '../device/block-device.js';
import { decodeGuid, type Guid, NIL_GUID } from '../format/guid.js';
import type { CacheStore } from './cache-store.js';
import type { Settled } from './commits.js';

export class Identity {
  readonly #backing: BlockDevice;
  readonly #given: Guid | undefined;

  constructor(backing: BlockDevice, given: Guid | undefined) {
    this.#backing = backing;
    this.#given = given;
  }

  /** Is what the image holds of another backing, or of another state of this one? */
  async differs({ file: { header }, catalog }: CacheStore): Promise<boolean> {
    const { modificationId, extension } = header;
    const { recency } = catalog;
    const isNew = recency.size === 0 && modificationId === NIL_GUID;
    if (isNew) return false;
    if (extension.backingSize !== 0 && extension.backingSize !== this.#backing.size) return true;
    if (this.#given !== undefined) return modificationId !== this.#given;
    if (extension.backingName !== 0n && extension.backingName !== this.#name()) return true;
    const derived = await this.#derived();
    // Named by somebody, who does not now: nobody can tell.
    if (!extension.derivedModification)
      return derived !== undefined && modificationId === NIL_GUID && recency.size > 0;
    return derived !== modificationId;
  }

  /** Takes an image over that is of this backing, or of none yet. */
  async adopt({ file }: CacheStore): Promise<void> {
    if (this.#given === undefined || file.header.modificationId === this.#given) return;
    await file.update({ modificationId: this.#given }, { derivedModification: false });
  }

  /** Flushes the backing. @returns what it is then */
  async settle(): Promise<Settled> {
    if (this.#backing.writable) await this.#backing.flush();
    const derived = this.#given === undefined ? await this.#derived() : undefined;
    const modificationId = this.#given ?? derived;
    return {
      header: modificationId === undefined ? {} : { modificationId },
      extension: {
        ...(modificationId === undefined ? {} : { derivedModification: derived !== undefined }),
        backingSize: this.#backing.size,
        backingName: this.#name(),
      },
    };
  }

  #name(): bigint {
    const hash = createHash('sha256').update(this.#backing.name).digest();
    return hash.readBigUInt64LE() | 1n;
  }

  /** The time of the last change, as a UUID. */
  async #derived(): Promise<Guid | undefined> {
    const time = await this.#backing.modifiedAt?.();
    if (time === undefined) return undefined;
    const bytes = Buffer.alloc(16);
    bytes.writeBigInt64LE(time, 0);
    bytes.writeBigInt64LE(BigInt(this.#backing.size), 8);
    return decodeGuid(bytes, 0);
  }
}
