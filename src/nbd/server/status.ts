/** Extents of a metadata context for one answer: coalesced, bounded in number, cut where the protocol wants it. */
import { setImmediate as otherWork } from 'node:timers/promises';
import { COMPACT_EXTENT_MAX, type StatusExtent } from '../wire/block-status.js';
import type { StatusContext } from './export.js';

/** Extents of one answer, of all contexts together. Clients come back for the rest. */
export const EXTENTS_MAX = 65_536;
/** Pieces after which others have their turn. */
const PIECES_A_TURN = 4096;
/** Pieces looked at for one answer, however few extents they make: other requests want their turn. */
const PIECES_MAX = 1_000_000;

/**
 * @param bounds how far extents may reach: `request` to the end of the request at most, and one extent only (`REQ_ONE`)
 * @param extended lengths may have 64 bits; `most`: extents of the answer
 */
export async function collectExtents(
  context: StatusContext,
  range: { readonly offset: number; readonly length: number; readonly size: number },
  {
    reqOne,
    extended,
    most: extentsMost = EXTENTS_MAX,
  }: { readonly reqOne: boolean; readonly extended: boolean; readonly most?: number },
): Promise<StatusExtent[]> {
  const { offset, length, size } = range;
  const limit = extended ? Number.MAX_SAFE_INTEGER : COMPACT_EXTENT_MAX;
  const extents: StatusExtent[] = [];
  let covered = 0;
  let last: { length: number; status: number } | undefined;
  let pieces = 0;
  const most = reqOne ? length : size - offset;
  for await (const piece of context.extents(offset, length)) {
    let rest = Math.min(piece.length, most - covered);
    covered += rest;
    if (last !== undefined && last.status === piece.status) {
      const joined = Math.min(rest, limit - last.length);
      last.length += joined;
      rest -= joined;
    }
    while (rest > 0 && !(reqOne && last !== undefined) && extents.length < extentsMost) {
      last = { length: Math.min(rest, limit), status: piece.status };
      extents.push(last);
      rest -= last.length;
    }
    const isFull = rest > 0 || (reqOne && last !== undefined && piece.status !== last.status);
    if (isFull || covered >= length || ++pieces === PIECES_MAX) break;
    if (pieces % PIECES_A_TURN === 0) await otherWork();
  }
  return withinRequest(extents, length);
}

/** All but the last must end before the request does. */
function withinRequest(extents: StatusExtent[], length: number): StatusExtent[] {
  let sum = 0;
  for (const [i, extent] of extents.entries()) {
    sum += extent.length;
    if (sum >= length) return extents.slice(0, i + 1);
  }
  return extents;
}
