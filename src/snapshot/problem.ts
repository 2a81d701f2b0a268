/** What a check or a scrub can find, and what that means for whoever has to deal with it. */
import type { Guid } from '../format/guid.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock } from '../units.js';

export interface Problem {
  readonly code: /** The store as a whole cannot be read. */
    | 'store-damaged'
    /** A snapshot cannot be read. */
    | 'snapshot-damaged'
    /** The volume was written, or changed its size, while volsnap was not there. */
    | 'volume-changed'
    /** Items of the control file contradict each other or the diff areas. */
    | 'catalog'
    /** Two copies share a slot, or blocks their place in the volume, or a snapshot skips a block that an older one needs. */
    | 'space'
    /** A copy fails its checksum. */
    | 'checksum'
    /** The device fails to read a copy. */
    | 'unreadable'
    /** A file that no snapshot owns. */
    | 'orphan'
    /** Something odd about a store that Windows wrote. */
    | 'note';
  readonly message: string;
  readonly snapshot?: Guid;
  /** Of `checksum` and `unreadable`: the block whose copy it is; none: the block of zeros. */
  readonly block?: BlockNumber;
  /** Of the same: the snapshots in which that block cannot be read, oldest first. */
  readonly affected?: readonly Guid[];
  /** Was it put right? Then it is not there any more. */
  readonly repaired?: boolean;
}

/** What a problem means, and what can be done about it, in words. */
export function explainProblem(problem: Problem): string {
  if (problem.repaired === true) return 'It was put right.';
  switch (problem.code) {
    case 'store-damaged':
      return 'No snapshot can be found through it, the volume itself is as it is. Nothing is repaired: look at the disk that holds the store first.';
    case 'snapshot-damaged':
      return 'Neither it nor an older one, which reads through it, can be read. Export those that can be first; --repair removes it and all older ones.';
    case 'volume-changed':
      return 'What was overwritten then was not copied, so snapshots may be wrong there. --changed keep goes on with them, --changed invalidate gives all of them up.';
    case 'catalog':
      return 'In use it may still be read; the next opening would find what the devices hold. Of a volume that is being served --repair writes the control file again.';
    case 'space':
      return 'At least one snapshot has wrong bytes there, and its checksum says so to who reads it. Nothing is repaired: export what can be read, then delete the snapshot.';
    case 'checksum':
    case 'unreadable':
      return explainCopy(problem);
    case 'orphan':
      return 'It only takes room. The next opening for writing removes it, and so does --repair.';
    case 'note':
      return 'Nothing needs to be done.';
  }
}

function explainCopy({ block, affected = [] }: Problem): string {
  if (block === undefined)
    return 'volsnap itself does not read that block, readers such as libvshadow do. --scrub --repair writes it again.';
  const readers = affected.length === 0 ? 'a deleted snapshot' : affected.join(', ');
  return `${BLOCK_SIZE} bytes at ${offsetOfBlock(block)} cannot be read in ${readers}; everything else can. --scrub --repair writes them again if the volume or another snapshot has the same bytes; if none has, they are lost.`;
}
