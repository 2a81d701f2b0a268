/**
 * A store inside the volume that gives way to a write: the power is cut, or the process killed, at every step of that. The
 * snapshots are there and right, or gone; the volume never loses a byte, and the store goes on.
 */
import { expect, test } from 'vitest';
import { checkVolume, InVolumeStore, Volume } from '../../src/index.js';
import { SeededRandom, SimulatedWorld } from '../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../src/units.js';

/** More of them take other moments. */
const ROUNDS = Number(process.env.VOLSNAP_PROTECTED_ROUNDS ?? 1);
const SIZE = 128 * BLOCK_SIZE;
const RUN = { offset: 4 * BLOCK_SIZE, length: 96 * BLOCK_SIZE };
/** Where the write goes: within the diff area of the snapshot, beginning in the middle of a block. */
const OFFSET = 20.5 * BLOCK_SIZE;
const LENGTH = 2 * BLOCK_SIZE;

const open = (world: SimulatedWorld) =>
  Volume.open(world.device('volume'), {
    environment: world.environment(),
    onProtectedWrite: 'drop',
    onVolumeChanged: 'keep',
    growth: { initial: 16 * BLOCK_SIZE, maximum: 32 * BLOCK_SIZE },
  });

/** @returns the volume as it is, durably, and as it was at its snapshot */
async function prepare(world: SimulatedWorld, random: SeededRandom) {
  const store = new InVolumeStore({ runs: [RUN] });
  await Volume.initialize(world.device('volume'), { store, environment: world.environment() });
  const volume = await open(world);
  const now = new Uint8Array(SIZE);
  const write = async (block: number) => {
    const bytes = random.fill(new Uint8Array(BLOCK_SIZE));
    await volume.write(block * BLOCK_SIZE, bytes);
    now.set(bytes, block * BLOCK_SIZE);
  };
  for (const block of [1, 2, 100, 101]) await write(block);
  await volume.createSnapshot();
  const then = now.slice();
  for (const block of [2, 100, 110]) await write(block);
  await volume.flush();
  return { volume, now, then };
}

/** Are all sectors of the range as in one of the two? */
function expectEither(found: Uint8Array, before: Uint8Array, after: Uint8Array, what: string): void {
  for (let at = 0; at < found.byteLength; at += SECTOR_SIZE) {
    const same = [before, after].some(
      (bytes) =>
        Buffer.compare(found.subarray(at, at + SECTOR_SIZE), bytes.subarray(at, at + SECTOR_SIZE)) === 0,
    );
    expect(same, `${what}, sector at ${at}`).toBe(true);
  }
}

const ENDS = ['power-cut', 'kill'] as const;
const CASES = Array.from({ length: ROUNDS }, (_, round) => ENDS.map((end) => ({ end, round }))).flat();

test.each(CASES)('a $end at any step (round $round)', async ({ end, round }) => {
  let outcomes = 0;
  for (let steps = 1, isOver = false; !isOver; steps++) {
    const what = `${end} after ${steps} steps, round ${round}`;
    const world = new SimulatedWorld(what);
    const random = new SeededRandom(what);
    world.addDisk('volume', { size: SIZE });
    const { volume, now, then } = await world.run(() => prepare(world, random));
    const bytes = random.fill(new Uint8Array(LENGTH));
    isOver = (await world.runSteps(() => volume.write(OFFSET, bytes), steps)).finished;
    world.crash(end);
    const after = now.slice();
    after.set(bytes, OFFSET);
    await world.run(async () => {
      const again = await open(world);
      const found = await again.read(0, SIZE);
      expectEither(found, now, after, what);
      if (isOver && end === 'kill') expect(Buffer.compare(found, after), what).toBe(0);
      const [snapshot] = again.snapshots;
      if (snapshot === undefined) outcomes |= 1;
      else {
        outcomes |= 2;
        expect(Buffer.compare(await snapshot.read(0, SIZE), then), what).toBe(0);
        expect(Buffer.compare(found, now), what).toBe(0);
      }
      const taken = await again.createSnapshot();
      await again.write(100 * BLOCK_SIZE, random.fill(new Uint8Array(4 * BLOCK_SIZE)));
      expect(Buffer.compare(await taken.read(0, SIZE), found), what).toBe(0);
      await again.close();
      const problems = await checkVolume(world.device('volume', { writable: false }), { scrub: true });
      expect(problems, what).toEqual([]);
    });
    expect(world.violations, what).toEqual([]);
  }
  expect(outcomes & 1).toBe(1);
});
