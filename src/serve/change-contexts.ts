/**
 * The metadata contexts of a volume's exports that tell what changed.
 *
 *     qemu:dirty-bitmap:since-ID   since that snapshot: until now on the volume, until the snapshot itself on a snapshot's export
 *     volsnap:changed:ID..ID       between any two snapshots, the older first
 *
 * An extent's status is 1 where something was written. Ids may be shortened while they stay clear; a list gives them whole.
 */
import { setImmediate as otherWork } from 'node:timers/promises';
import type { StatusContext, StatusContexts } from '../nbd/server/export.js';
import type { StatusExtent } from '../nbd/wire/block-status.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { VolumeAccess } from '../volume/access.js';

const SINCE = 'qemu:dirty-bitmap:since-';
const CHANGED = 'volsnap:changed:';
const BETWEEN = '..';

/** `NBD_STATE_DIRTY` of QEMU's bitmaps. */
const DIRTY = 1;
const CLEAN = 0;

/** Tables of so many bytes of a volume are looked through before others have their turn. */
const TURN_BYTES = 64 * 1024 ** 3;

/** What a context tells about, with its name in whole ids. */
interface Span {
  readonly name: string;
  readonly since: Snapshot;
  /** `undefined`: now. */
  readonly until: Snapshot | undefined;
}

/** The only snapshot whose id, or whose store's, begins so; damaged ones have nothing to tell. */
export function snapshotNamed(volume: VolumeAccess, text: string): Snapshot | undefined {
  const wanted = text.toLowerCase();
  if (wanted === '') return undefined;
  const found = volume.snapshots.filter(
    ({ id, storeId }) => id.startsWith(wanted) || storeId.startsWith(wanted),
  );
  const exact = found.find(({ id, storeId }) => id === wanted || storeId === wanted);
  return exact ?? (found.length === 1 ? found[0] : undefined);
}

export class ChangeContexts implements StatusContexts {
  readonly #volume: VolumeAccess;
  /** The moment that the export shows; `undefined`: now. */
  readonly #until: Snapshot | undefined;
  readonly #size: ByteLength;

  constructor(volume: VolumeAccess, until: Snapshot | undefined, size: ByteLength) {
    this.#volume = volume;
    this.#until = until;
    this.#size = size;
  }

  list(query?: string): readonly string[] {
    if (query === undefined) return [...this.#sinceNames(), CHANGED];
    if (query === 'qemu:' || query === 'qemu:dirty-bitmap:') return this.#sinceNames();
    if (query === 'volsnap:') return [CHANGED];
    // Of all pairs there can be a hundred thousand; neighbours show what a name looks like.
    if (query === CHANGED) return this.#neighbourNames();
    const span = this.#spanOf(query);
    return span === undefined ? [] : [span.name];
  }

  select(query: string): readonly StatusContext[] {
    const span = this.#spanOf(query);
    return span === undefined ? [] : [this.#context(query, span)];
  }

  #sinceNames(): string[] {
    return this.#older().map(({ id }) => `${SINCE}${id}`);
  }

  #neighbourNames(): string[] {
    const { snapshots } = this.#volume;
    return snapshots.slice(1).map(({ id }, i) => `${CHANGED}${snapshots[i]?.id}${BETWEEN}${id}`);
  }

  /** Snapshots older than the moment of the export. */
  #older(): readonly Snapshot[] {
    const { snapshots } = this.#volume;
    const until = this.#until;
    return until === undefined ? snapshots : snapshots.filter(({ order }) => order < until.order);
  }

  #spanOf(query: string): Span | undefined {
    if (query.startsWith(SINCE)) {
      const since = snapshotNamed(this.#volume, query.slice(SINCE.length));
      if (since === undefined || !this.#older().includes(since)) return undefined;
      return { name: `${SINCE}${since.id}`, since, until: this.#until };
    }
    if (!query.startsWith(CHANGED)) return undefined;
    const [from = '', to = '', ...more] = query.slice(CHANGED.length).split(BETWEEN);
    const [since, until] = [snapshotNamed(this.#volume, from), snapshotNamed(this.#volume, to)];
    if (since === undefined || until === undefined || more.length > 0) return undefined;
    if (since.order > until.order) return undefined;
    return { name: `${CHANGED}${since.id}${BETWEEN}${until.id}`, since, until };
  }

  /** Named as it was asked for: QEMU and libnbd look for that in the answer, and take another name for a refusal. */
  #context(name: string, { since, until }: Span): StatusContext {
    const [volume, size] = [this.#volume, this.#size];
    const moments = { since, ...(until === undefined ? {} : { until }) };
    return {
      name,
      async *extents(offset: ByteOffset, length: ByteLength): AsyncGenerator<StatusExtent> {
        const end = Math.min(size, offset + length);
        let at = offset;
        for (let turn = offset; turn < end; turn += TURN_BYTES) {
          if (turn > offset) await otherWork();
          const part = { offset: turn, length: Math.min(TURN_BYTES, end - turn) };
          for await (const changed of volume.changedBlocks({ ...moments, ...part })) {
            if (changed.offset > at) yield { length: changed.offset - at, status: CLEAN };
            yield { length: changed.length, status: DIRTY };
            at = changed.offset + changed.length;
          }
        }
        if (at < end) yield { length: end - at, status: CLEAN };
      },
    };
  }
}
