/**
 * Works on a volume until it is killed: `kill-child.ts IMAGE LOG SEED FIRST`.
 *
 * Each operation is written to the log before it begins and after it was acknowledged. The log is opened for appending
 * and written with one system call a line: what was written survives the process.
 */
import { openSync, writeSync } from 'node:fs';
import { FileDevice } from '../../src/device/file-device.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { SECTOR_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { dataOf, type LogLine } from './kill-log.ts';

const SNAPSHOTS_KEPT = 4;

async function main(image: string, logPath: string, seed: string, first: number): Promise<void> {
  const random = new SeededRandom(`${seed}/from ${first}`);
  const log = openSync(logPath, 'a');
  const tell = (line: LogLine) => writeSync(log, `${JSON.stringify(line)}\n`);
  const volume = await Volume.open(await FileDevice.open(image, { writable: true }), {
    growth: { initial: 32 * 16_384, maximum: 128 * 16_384 },
  });
  process.stdout.write('ready\n');
  let next = first;

  /** Several writes at once, none of which touches a sector of another. */
  async function writeBatch(): Promise<void> {
    const count = random.between(1, 8);
    const share = Math.floor(volume.size / count / SECTOR_SIZE);
    await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const sectors = random.between(1, Math.min(share, random.chance(0.2) ? 400 : 40));
        const offset = (i * share + random.below(share - sectors + 1)) * SECTOR_SIZE;
        const number = next++;
        const length = sectors * SECTOR_SIZE;
        tell({ number, begin: 'write', offset, length });
        await volume.write(offset, dataOf(seed, number, length));
        tell({ number, done: true });
      }),
    );
  }

  for (;;) {
    const kind = random.below(100);
    if (kind < 14) {
      const number = next++;
      tell({ number, begin: 'create' });
      const [snapshot] = await Promise.all([
        volume.createSnapshot({ label: `number ${number}` }),
        random.chance(0.5) ? writeBatch() : undefined,
      ]);
      tell({ number, done: true, id: snapshot.id });
    } else if (kind < 24 && volume.snapshots.length > 0) {
      while (volume.snapshots.length > SNAPSHOTS_KEPT) await removeOldest();
      await Promise.all([removeOldest(), random.chance(0.5) ? writeBatch() : undefined]);
    } else if (kind < 28) await volume.flush();
    else await writeBatch();
  }

  async function removeOldest(): Promise<void> {
    const number = next++;
    tell({ number, begin: 'delete' });
    await volume.snapshots[0]?.delete();
    tell({ number, done: true });
  }
}

const [, , image = '', log = '', seed = '', first = '0'] = process.argv;
await main(image, log, seed, Number(first));
