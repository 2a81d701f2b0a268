/** Blocks told apart by their hashes: a whole volume of them fits into the memory of a test. */
import { createHash } from 'node:crypto';
import { BLOCK_SIZE } from '../../../src/units.ts';

/** SHA-256 of each block, the last of which may be short. */
export function hashesOfBlocks(bytes: Uint8Array): string[] {
  const hashes: string[] = [];
  for (let at = 0; at < bytes.byteLength; at += BLOCK_SIZE)
    hashes.push(
      createHash('sha256')
        .update(bytes.subarray(at, at + BLOCK_SIZE))
        .digest('hex'),
    );
  return hashes;
}
