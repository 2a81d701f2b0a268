/** What an open volume is changed through, or why it cannot be. */
import { ReadOnlyError, UnsupportedError } from '../errors.js';
import type { VolumeParts } from './assemble.js';
import type { ChangeEngine } from './changing.js';

/** What writes go through, whoever wrote the snapshots. @throws ClosedError, ReadOnlyError */
export function changesOf({ life, writer, windows, device }: VolumeParts): ChangeEngine {
  const engine = writer?.engine ?? windows;
  if (engine !== undefined) return engine;
  life.check();
  throw new ReadOnlyError(`${device.name} is open for reading only`);
}

/** What changes a store of volsnap. @throws ClosedError, ReadOnlyError, UnsupportedError (the store is Windows' own) */
export function storeWriterOf({
  life,
  writer,
  windows,
  device,
}: VolumeParts): NonNullable<VolumeParts['writer']> {
  if (writer !== undefined) return writer;
  life.check();
  if (windows === undefined) throw new ReadOnlyError(`${device.name} is open for reading only`);
  throw new UnsupportedError(
    `${device.name} has shadow copies that Windows made; they can be read, kept and, oldest first, deleted, no more. To take snapshots of it, have a store of volsnap take them over, with: volsnap init ${device.name} --in-volume --reserve SIZE --shadow-copies keep`,
  );
}
