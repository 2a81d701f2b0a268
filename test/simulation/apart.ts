/** Copies beside the main thread, as a simulated world makes them: some of them, one device operation after the other. */

import { crc32 } from 'node:zlib';
import type { Apart } from '../../src/copy-on-write/copy-host.js';
import type { ApartCopier, ThreadCopied } from '../../src/copy-on-write/thread-copies.js';
import { isZeros } from '../../src/device/zeros.js';
import type { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE, offsetOfBlock } from '../../src/units.js';

/** Share of batches that are left to the engine, and of those that end halfway, for no reason that it knows. */
const BUSY = 0.3;
const GIVEN_UP = 0.05;

export class SimulatedApart implements Apart {
  readonly smallest = 1;
  readonly copier: ApartCopier;

  constructor(random: SeededRandom) {
    this.copier = {
      get isFree() {
        return !random.chance(BUSY);
      },
      async copy(volume, area, blocks, slots): Promise<ThreadCopied | undefined> {
        const sums = blocks.map(() => 0);
        const zeros: number[] = [];
        for (const [i, block] of blocks.entries()) {
          if (random.chance(GIVEN_UP)) return undefined;
          const offset = offsetOfBlock(block);
          const data = new Uint8Array(BLOCK_SIZE);
          await volume.read(offset, data.subarray(0, Math.min(BLOCK_SIZE, volume.size - offset)));
          if (isZeros(data)) {
            zeros.push(i);
            continue;
          }
          sums[i] = crc32(data);
          await area.file.device.write(area.positionOf(slots[i] ?? 0), data);
        }
        return { sums, zeros };
      },
      async close() {
        // There is no thread to end.
      },
    };
  }
}
