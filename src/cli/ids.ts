/** Ids of snapshots: shortened as far as they stay clear. */
import { InvalidArgumentError, NotFoundError, type Snapshot, type VolumeAccess } from '../index.js';
import { UsageError } from './failure.js';
import { shellWord } from './text.js';

const SHORTEST_SHOWN = 8;
const CANDIDATES_SHOWN = 8;

/**
 * The snapshot that `text` stands for: its id, its store's id, or the beginning of either.
 * @throws NotFoundError, InvalidArgumentError (several begin so), UsageError (nothing given)
 */
export function findSnapshot(volume: VolumeAccess, text: string): Snapshot {
  const wanted = text.trim().replace(/^\{/, '').replace(/\}$/, '').toLowerCase();
  if (wanted === '') throw new UsageError('an empty id names no snapshot');
  const found = volume.snapshots.filter(
    ({ id, storeId }) => id.startsWith(wanted) || storeId.startsWith(wanted),
  );
  const exact = found.filter(({ id, storeId }) => id === wanted || storeId === wanted);
  const [only, ...others] = exact.length > 0 ? exact : found;
  if (only === undefined) {
    throw new NotFoundError(
      `${volume.name} has no snapshot ${text}; see: volsnap list ${shellWord(volume.name)}`,
    );
  }
  if (others.length > 0) {
    const shown = found
      .slice(0, CANDIDATES_SHOWN)
      .map(({ id, storeId }) => (id.startsWith(wanted) ? id : `${id} (store ${storeId})`));
    const rest = found.length - shown.length;
    throw new InvalidArgumentError(
      `${text} could be ${shown.join(' or ')}${rest > 0 ? ` or ${rest} more` : ''}; give more of the id`,
    );
  }
  return only;
}

/** The shortest beginning of the snapshot's id that names it among all of its volume. */
export function shortId({ id, storeId }: Snapshot, all: readonly Snapshot[]): string {
  const others = all
    .filter((other) => other.storeId !== storeId)
    .flatMap((other) => [other.id, other.storeId]);
  for (let length = SHORTEST_SHOWN; length < id.length; length++) {
    const short = id.slice(0, length);
    if (!short.endsWith('-') && !others.some((other) => other.startsWith(short))) return short;
  }
  return id;
}
