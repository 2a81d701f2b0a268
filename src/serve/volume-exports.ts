/**
 * The exports of volumes that are served over NBD:
 *
 *     live, and the empty name   the volume
 *     snapshot/ID                a snapshot, read-only, or writable where the snapshot is; they come and go
 *
 * If several volumes are served, each export's name has the volume's before it, `NAME/live`, `NAME` alone is short for that, and
 * the empty name stands for nothing.
 *
 * Shared state: the counts of users, changed between awaits only.
 */
import type { Lent } from '../device/buffer-pool.js';
import { writeZeros } from '../device/zeros.js';
import { ReadOnlyError } from '../errors.js';
import { allocationContext, FixedContexts } from '../nbd/server/device-export.js';
import type { ExportCatalog, NbdExport, StatusContext, StatusContexts } from '../nbd/server/export.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { Volume } from '../volume/volume.js';
import { ChangeContexts, snapshotNamed } from './change-contexts.js';

const LIVE = 'live';
const SNAPSHOT = 'snapshot/';

export interface ServedVolume {
  readonly volume: Volume;
  /** Before the names of its exports, where several volumes are served. */
  readonly name: string;
}

export interface VolumeExportsOptions {
  /** Nobody may write; default: whoever connects, if the volume is writable. */
  readonly readOnly?: boolean;
}

/** What was done with the exports of one kind; plain counts, read when somebody wants to know. */
export class ExportFigures {
  /** Connections that use one now. */
  users = 0;
  reads = 0;
  readBytes = 0;
  writes = 0;
  writtenBytes = 0;
  failures = 0;
}

export class VolumeExports implements ExportCatalog {
  readonly #volumes: readonly ServedVolume[];
  readonly #readOnly: boolean;
  readonly figures: Readonly<Record<'live' | 'snapshot', ExportFigures>> = {
    live: new ExportFigures(),
    snapshot: new ExportFigures(),
  };

  /** @param volumes with names that differ */
  constructor(volumes: readonly ServedVolume[], { readOnly = false }: VolumeExportsOptions = {}) {
    this.#volumes = volumes;
    this.#readOnly = readOnly;
  }

  list(): { name: string; description: string }[] {
    const all = this.#volumes.flatMap(({ volume, name }) => {
      const before = this.#prefix(name);
      return [
        { name: `${before}${LIVE}`, description: volume.name },
        ...volume.snapshots
          .filter(({ hidden, offline }) => !hidden && !offline)
          .map((snapshot) => ({
            name: `${before}${SNAPSHOT}${snapshot.id}`,
            description: describe(snapshot),
          })),
      ];
    });
    const [only, ...others] = this.#volumes;
    const isDefault = only !== undefined && others.length === 0;
    return isDefault ? [{ name: '', description: only.volume.name }, ...all] : all;
  }

  async open(name: string): Promise<NbdExport | undefined> {
    for (const { volume, name: volumeName } of this.#volumes) {
      const before = this.#prefix(volumeName);
      const isShort = name === before.slice(0, -1);
      if (!isShort && !name.startsWith(before)) continue;
      const rest = isShort ? LIVE : name.slice(before.length);
      if (rest === LIVE) return this.#live(volume, name);
      if (!rest.startsWith(SNAPSHOT)) continue;
      const snapshot = snapshotNamed(volume, rest.slice(SNAPSHOT.length));
      // Named as in the list, however it was asked for: a shortened id may be taken by a later snapshot too.
      if (snapshot !== undefined && !snapshot.offline)
        return this.#snapshot(volume, snapshot, `${before}${SNAPSHOT}${snapshot.id}`);
    }
    return undefined;
  }

  #prefix(name: string): string {
    return this.#volumes.length === 1 ? '' : `${name}/`;
  }

  #live(volume: Volume, name: string): NbdExport {
    const figures = this.figures.live;
    figures.users++;
    const writable = volume.writable && !this.#readOnly;
    return new LiveExport(name, volume, writable, figures);
  }

  #snapshot(volume: Volume, snapshot: Snapshot, name: string): NbdExport {
    const figures = this.figures.snapshot;
    figures.users++;
    const writable = snapshot.writable && volume.writable && !this.#readOnly;
    return new SnapshotExport(name, volume, snapshot, writable, figures);
  }
}

const describe = ({ label, createdAt }: Snapshot): string => {
  const when = Number.isNaN(createdAt.getTime()) ? '' : createdAt.toISOString();
  return label === undefined ? when : `${when} ${label}`;
};

/** Waits for what an export does, and counts it. */
async function counting<T>(figures: ExportFigures, action: Promise<T>): Promise<T> {
  try {
    return await action;
  } catch (error) {
    figures.failures++;
    throw error;
  }
}

/** The contexts of `ChangeContexts`, and `base:allocation`. */
class ExportContexts implements StatusContexts {
  readonly #allocation: FixedContexts;
  readonly #changes: ChangeContexts;

  constructor(allocation: StatusContext, changes: ChangeContexts) {
    this.#allocation = new FixedContexts([allocation]);
    this.#changes = changes;
  }

  list(query?: string): readonly string[] {
    return [...this.#allocation.list(query), ...this.#changes.list(query)];
  }

  select(query: string): readonly StatusContext[] {
    return [...this.#allocation.select(query), ...this.#changes.select(query)];
  }
}

class LiveExport implements NbdExport {
  readonly description: string;
  readonly size: ByteLength;
  /** Often it is fast, but that is not promised: what snapshots need is copied first, and not every device has a short way. */
  readonly zeroesFast = false;
  readonly contexts: StatusContexts;

  constructor(
    readonly name: string,
    private readonly volume: Volume,
    readonly writable: boolean,
    private readonly figures: ExportFigures,
  ) {
    this.description = volume.name;
    this.size = volume.size;
    this.contexts = new ExportContexts(
      allocationContext(volume),
      new ChangeContexts(volume, undefined, volume.size),
    );
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<unknown> {
    this.figures.reads++;
    this.figures.readBytes += target.byteLength;
    return counting(this.figures, this.volume.read(offset, target));
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    this.figures.writes++;
    this.figures.writtenBytes += source.byteLength;
    return counting(this.figures, this.volume.write(offset, source));
  }

  take(offset: ByteOffset, source: Uint8Array, lent: Lent): Promise<void> | undefined {
    this.figures.writes++;
    this.figures.writtenBytes += source.byteLength;
    try {
      return this.volume.take(offset, source, lent)?.then(undefined, this.#failed);
    } catch (error) {
      return this.#failed(error);
    }
  }

  readonly #failed = (error: unknown): never => {
    this.figures.failures++;
    throw error;
  };

  writeZeroes(offset: ByteOffset, length: ByteLength, keepAllocated: boolean): Promise<void> {
    this.figures.writes++;
    this.figures.writtenBytes += length;
    const zeroed = keepAllocated
      ? writeZeros((at, source) => this.volume.write(at, source), offset, length)
      : this.volume.writeZeroes(offset, length);
    return counting(this.figures, zeroed);
  }

  /** A hint in this protocol: where it would only mean to write zeros, nothing is done. */
  async discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    if (this.volume.discards) await counting(this.figures, this.volume.discard(offset, length));
  }

  flush(): Promise<void> {
    return counting(this.figures, this.volume.flush());
  }

  release(): void {
    this.figures.users--;
  }
}

/** A snapshot that is deleted meanwhile fails its readers; nobody else notices. */
class SnapshotExport implements NbdExport {
  readonly description: string;
  readonly size: ByteLength;
  readonly zeroesFast = false;
  readonly contexts: StatusContexts;

  constructor(
    readonly name: string,
    volume: Volume,
    private readonly snapshot: Snapshot,
    readonly writable: boolean,
    private readonly figures: ExportFigures,
  ) {
    this.description = describe(snapshot);
    this.size = snapshot.size;
    this.contexts = new ExportContexts(
      allocationContext(snapshot),
      new ChangeContexts(volume, snapshot, snapshot.size),
    );
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<unknown> {
    this.figures.reads++;
    this.figures.readBytes += target.byteLength;
    return counting(this.figures, this.snapshot.read(offset, target));
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#writing(source.byteLength, () => this.snapshot.write(offset, source));
  }

  writeZeroes(offset: ByteOffset, length: ByteLength, keepAllocated: boolean): Promise<void> {
    return this.#writing(length, () =>
      keepAllocated
        ? writeZeros((at, source) => this.snapshot.write(at, source), offset, length)
        : this.snapshot.writeZeroes(offset, length),
    );
  }

  async discard(): Promise<void> {
    // A hint in this protocol: to write zeros would take space instead of giving it back.
  }

  async flush(): Promise<void> {
    if (this.writable) await counting(this.figures, this.snapshot.flush());
  }

  async #writing(length: ByteLength, action: () => Promise<void>): Promise<void> {
    if (!this.writable) throw new ReadOnlyError('this snapshot can only be read');
    this.figures.writes++;
    this.figures.writtenBytes += length;
    await counting(this.figures, action());
  }

  release(): void {
    this.figures.users--;
  }
}
