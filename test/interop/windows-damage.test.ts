import { expect, test } from 'vitest';
import { MemoryDevice } from '../../src/device/memory-device.ts';
import { VolsnapError } from '../../src/errors.ts';
import { viewOf } from '../../src/format/binary.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { ForeignStore } from '../../src/windows/foreign-store.ts';
import { randomWindowsImage } from './support/random-windows-image.ts';
import type { WindowsImage } from './support/windows-image.ts';

const IMAGES = Number(process.env.VOLSNAP_WINDOWS_IMAGES ?? 150) * 4;
const SEED = process.env.VOLSNAP_SEED ?? 'damage';
/** Values that have broken readers before. */
const NASTY = [
  0n,
  1n,
  0x1e00n,
  0x4000n,
  1n << 31n,
  1n << 32n,
  1n << 53n,
  1n << 63n,
  (1n << 64n) - 1n,
  (1n << 63n) + 0x4000n,
];

test(`${IMAGES} damaged images end in a read or in an error, within bounds`, async () => {
  let opened = 0;
  let refused = 0;
  let unreadable = 0;
  for (let index = 0; index < IMAGES; index++) {
    const seed = `${SEED}/${index}`;
    const random = new SeededRandom(seed);
    const image = randomWindowsImage(random);
    for (let left = random.between(1, 6); left > 0; left--) damage(random, image);
    const device = new CountingDevice(image.bytes);
    try {
      const store = await ForeignStore.open(device);
      // Two times the blocks of the device for all chains, and the start block.
      expect(device.reads, seed).toBeLessThanOrEqual(2 * 90 + 1);
      opened++;
      for (const snapshot of store.snapshots) {
        try {
          const content = await snapshot.read(0, snapshot.size);
          expect(content.byteLength, seed).toBeLessThanOrEqual(image.bytes.byteLength);
        } catch (error) {
          if (!(error instanceof VolsnapError)) throw error;
          unreadable++;
        }
      }
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw new Error(`image ${seed}`, { cause: error });
      refused++;
    }
  }
  // The damage must reach all three outcomes, or this test shows nothing.
  expect(
    [opened, refused, unreadable].every((count) => count > IMAGES / 30),
    `${[opened, refused, unreadable]}`,
  ).toBe(true);
});

/** Changes bytes of the start block, or of the used part of one metadata block. */
function damage(random: SeededRandom, { bytes, at, end }: WindowsImage): void {
  const view = viewOf(bytes);
  const blocks = [...at.values()];
  const block = random.chance(0.1) ? 0 : (random.pick(blocks) ?? 0);
  const start = block === 0 ? 0x1e00 : block * BLOCK_SIZE;
  const position = start + 8 * random.below(random.chance(0.7) ? 12 : 128);
  const offset = BigInt(random.below(end + 4) * BLOCK_SIZE);
  switch (random.below(5)) {
    case 0:
      view.setUint8(position, random.below(256));
      break;
    case 1:
      view.setBigUint64(position, random.pick(NASTY), true);
      break;
    case 2:
      view.setBigUint64(position, offset, true);
      break;
    case 3: // a link
      view.setBigUint64(start + 40, offset, true);
      break;
    default: // an item, an entry: one field of it
      view.setBigUint64(
        start + 128 + 8 * random.below(64),
        random.chance(0.5) ? offset : random.pick(NASTY),
        true,
      );
  }
}

class CountingDevice extends MemoryDevice {
  reads = 0;
  override read(offset: number, target: Uint8Array): Promise<void> {
    this.reads++;
    return super.read(offset, target);
  }
}
