/**
 * Real processes killed while they write, take and delete snapshots. The test rebuilds from the child's log what the
 * volume and every snapshot may hold, and compares.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import { DirectoryStore } from '../../src/store/directory-store.ts';
import { InVolumeStore } from '../../src/store/in-volume-store.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { SECTOR_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { bundled } from '../bundled.ts';
import { dataOf, type LogLine, type WriteBegun } from './kill-log.ts';

const CHILD = bundled(new URL('./kill-child.ts', import.meta.url));
const ROUNDS = Number(process.env.VOLSNAP_KILL_ROUNDS ?? 10);
const SEED = process.env.VOLSNAP_SEED ?? 'kill';
const SIZE = 6 * 1024 * 1024 + 5 * SECTOR_SIZE;

/** A moment of the volume, some sectors of which may hold other bytes as well. */
class Moment {
  readonly bytes: Uint8Array;
  /** What else each sector may hold. */
  readonly others: Map<number, Uint8Array[]>;

  constructor(bytes: Uint8Array, others: ReadonlyMap<number, Uint8Array[]> = new Map()) {
    this.bytes = bytes.slice();
    this.others = new Map([...others].map(([sector, list]) => [sector, [...list]]));
  }

  mayHold(offset: number, data: Uint8Array): void {
    for (let at = 0; at < data.byteLength; at += SECTOR_SIZE) {
      const sector = (offset + at) / SECTOR_SIZE;
      const list = this.others.get(sector) ?? [];
      list.push(data.subarray(at, at + SECTOR_SIZE));
      this.others.set(sector, list);
    }
  }

  holds(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    for (let at = 0; at < data.byteLength; at += SECTOR_SIZE) this.others.delete((offset + at) / SECTOR_SIZE);
  }

  /** Sectors of `actual` that hold nothing that they may. */
  wrong(actual: Uint8Array): number[] {
    const sectors: number[] = [];
    for (let at = 0; at < this.bytes.byteLength; at += SECTOR_SIZE) {
      const found = actual.subarray(at, at + SECTOR_SIZE);
      const allowed = [
        this.bytes.subarray(at, at + SECTOR_SIZE),
        ...(this.others.get(at / SECTOR_SIZE) ?? []),
      ];
      if (!allowed.some((bytes) => Buffer.compare(bytes, found) === 0)) sectors.push(at / SECTOR_SIZE);
    }
    return sectors;
  }
}

/** What there may be, according to the log. */
class Expectation {
  readonly #seed: string;
  now: Moment;
  /** By id, oldest first. */
  readonly snapshots: Map<string, Moment>;
  /** A snapshot that was being taken. */
  unborn: Moment | undefined;
  deleting = false;
  nextNumber = 0;

  constructor(seed: string, bytes: Uint8Array) {
    this.#seed = seed;
    this.now = new Moment(bytes);
    this.snapshots = new Map();
  }

  replay(lines: readonly LogLine[]): void {
    const writes = new Map<number, WriteBegun>();
    let creating: { number: number; moment: Moment } | undefined;
    let deleting: number | undefined;
    for (const line of lines) {
      this.nextNumber = Math.max(this.nextNumber, line.number + 1);
      if ('begin' in line) {
        if (line.begin === 'create') {
          creating = { number: line.number, moment: new Moment(this.now.bytes, this.now.others) };
          for (const write of writes.values()) creating.moment.mayHold(write.offset, this.#dataOf(write));
        } else if (line.begin === 'delete') deleting = line.number;
        else {
          writes.set(line.number, line);
          creating?.moment.mayHold(line.offset, this.#dataOf(line));
        }
        continue;
      }
      const write = writes.get(line.number);
      if (write !== undefined) {
        this.now.holds(write.offset, this.#dataOf(write));
        writes.delete(line.number);
      } else if (creating?.number === line.number) {
        this.snapshots.set(line.id ?? '', creating.moment);
        creating = undefined;
      } else if (deleting === line.number) {
        const [oldest] = this.snapshots.keys();
        if (oldest !== undefined) this.snapshots.delete(oldest);
        deleting = undefined;
      }
    }
    for (const write of writes.values()) this.now.mayHold(write.offset, this.#dataOf(write));
    this.unborn = creating?.moment;
    this.deleting = deleting !== undefined;
  }

  #dataOf({ number, length }: WriteBegun): Uint8Array {
    return dataOf(this.#seed, number, length);
  }

  /** Compares with what is there, and goes on from that. */
  async compare(volume: Volume, what: string): Promise<void> {
    const ids = volume.snapshots.map(({ id }) => id);
    const wanted = [...this.snapshots.keys()];
    // A deletion under way took the oldest or did not; a creation under way gave one more or did not.
    const known = ids.filter((id) => this.snapshots.has(id));
    const isWithoutOldest = this.deleting && known.length === wanted.length - 1;
    expect(known, `snapshots, ${what}`).toEqual(isWithoutOldest ? wanted.slice(1) : wanted);
    const unknown = volume.snapshots.filter(({ id }) => !this.snapshots.has(id));
    expect(unknown.length, `unknown snapshots, ${what}`).toBeLessThanOrEqual(
      this.unborn === undefined ? 0 : 1,
    );
    if (isWithoutOldest) this.snapshots.delete(wanted[0] ?? '');
    const actual = await volume.read(0, volume.size);
    expect(this.now.wrong(actual), `sectors of the volume, ${what}`).toEqual([]);
    this.now = new Moment(actual);
    for (const snapshot of volume.snapshots) {
      expect(snapshot.state, `snapshot ${snapshot.order}, ${what}`).toBe('ok');
      const moment = this.snapshots.get(snapshot.id) ?? this.unborn;
      const bytes = await snapshot.read(0, snapshot.size);
      expect(moment?.wrong(bytes), `sectors of snapshot ${snapshot.order}, ${what}`).toEqual([]);
      this.snapshots.set(snapshot.id, new Moment(bytes));
    }
    this.unborn = undefined;
    this.deleting = false;
  }
}

async function startChild(image: string, log: string, seed: string, first: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [...CHILD, image, log, seed, String(first)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const ready = once(child.stdout ?? child, 'data');
  const ended = once(child, 'exit').then(() => {
    throw new Error(`the child ended by itself: ${complaint}`);
  });
  ended.catch(() => undefined);
  await Promise.race([ready, ended]);
  return child;
}

describe.each(['directory', 'in-volume'] as const)('a process killed under load (%s)', (layout) => {
  test(`loses nothing that was acknowledged, ${ROUNDS} times`, {
    timeout: 60_000 + ROUNDS * 6000,
  }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'volsnap-kill-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const seed = `${SEED} ${layout}`;
    const random = new SeededRandom(seed);
    const image = join(folder, 'disk.img');
    const log = join(folder, 'log');
    const bytes = random.fill(new Uint8Array(SIZE));
    await writeFile(image, bytes);
    const device = await FileDevice.open(image, { writable: true });
    await Volume.initialize(device, {
      store:
        layout === 'directory'
          ? new DirectoryStore(`${image}.volsnap`)
          : new InVolumeStore({ reserve: 128 * 1024 * 1024 }),
    });
    await device.close();
    const expectation = new Expectation(seed, bytes);
    const figures = { operations: 0, creating: 0, deleting: 0, dropped: 0, removed: 0, most: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      await writeFile(log, '');
      const child = await startChild(image, log, seed, expectation.nextNumber);
      await new Promise<void>((resolve) => setTimeout(resolve, random.below(random.chance(0.3) ? 20 : 400)));
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      expect(child.signalCode, 'the child lived until it was killed').toBe('SIGKILL');
      const text = await readFile(log, 'utf8');
      const lines = text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as LogLine);
      expectation.replay(lines);
      figures.operations += lines.length;
      if (expectation.unborn !== undefined) figures.creating++;
      if (expectation.deleting) figures.deleting++;
      const volume = await Volume.open(await FileDevice.open(image, { writable: true }));
      figures.dropped += volume.recovery.droppedCopies;
      figures.removed += volume.recovery.removedFiles.length;
      figures.most = Math.max(figures.most, volume.snapshots.length);
      await expectation.compare(volume, `round ${round} of seed ${seed}`);
      await volume.close();
    }
    console.info(`${layout}: ${ROUNDS} kills`, JSON.stringify(figures));
    expect(figures.operations).toBeGreaterThan(ROUNDS * 5);
  });
});
