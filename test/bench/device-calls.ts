/**
 * What a read and a write of a file cost, for the choices in src/device/sync-budget.ts and descriptor.ts.
 *
 * Question: up to which size is a call cheaper on the main thread than through the thread pool, cached and cold?
 * Run: node --import tsx test/bench/device-calls.ts [directory]. Cold reads need root (they drop the page cache).
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileDevice } from '../../src/device/file-device.js';

const FILE_SIZE = 512 << 20;
const SIZES = [4096, 16_384, 65_536, 262_144, 1 << 20];
const DEPTH = 16;

type Action = (buffer: Buffer, offset: number) => Promise<unknown> | number;

const path = join(process.argv[2] ?? tmpdir(), `volsnap-device-calls-${process.pid}`);
const fd = fs.openSync(path, 'w+');
try {
  const filler = Buffer.alloc(4 << 20, 1);
  for (let at = 0; at < FILE_SIZE; at += filler.length) fs.writeSync(fd, filler, 0, filler.length, at);
  await measure();
} finally {
  fs.closeSync(fd);
  fs.unlinkSync(path);
}

async function measure(): Promise<void> {
  const device = await FileDevice.open(path, { writable: true });
  const inPool =
    (start: (buffer: Buffer, offset: number, done: (error: Error | null) => void) => void): Action =>
    (buffer, offset) =>
      new Promise<void>((resolve, reject) => {
        start(buffer, offset, (error) => (error === null ? resolve() : reject(error)));
      });
  const actions: Readonly<Record<'read' | 'write', Readonly<Record<'sync' | 'pool' | 'device', Action>>>> = {
    read: {
      sync: (buffer, offset) => fs.readSync(fd, buffer, 0, buffer.length, offset),
      pool: inPool((buffer, offset, done) => fs.read(fd, buffer, 0, buffer.length, offset, done)),
      device: (buffer, offset) => device.read(offset, buffer),
    },
    write: {
      sync: (buffer, offset) => fs.writeSync(fd, buffer, 0, buffer.length, offset),
      pool: inPool((buffer, offset, done) => fs.write(fd, buffer, 0, buffer.length, offset, done)),
      device: (buffer, offset) => device.write(offset, buffer),
    },
  };
  for (const kind of ['read', 'write'] as const) {
    const { sync, pool, device: through } = actions[kind];
    const rows = [];
    for (const size of SIZES) {
      const count = Math.min(8000, (256 << 20) / size);
      rows.push({
        size,
        sync: await median(() => each(sync, size, count, 1)),
        [`pool, ${DEPTH} deep`]: await median(() => each(pool, size, count, DEPTH)),
        'pool, alone': await median(() => each(pool, size, count >> 2, 1)),
        [`FileDevice, ${DEPTH} deep`]: await median(() => each(through, size, count, DEPTH)),
        'FileDevice, alone': await median(() => each(through, size, count >> 2, 1)),
      });
      fs.fdatasyncSync(fd);
    }
    console.log(`${kind}, page cache, microseconds a call`);
    console.table(rows);
  }
  if (process.geteuid?.() === 0) {
    const { sync, pool, device: through } = actions.read;
    const rows = [];
    for (const size of SIZES.slice(0, 3)) {
      const cold = async (action: Action, depth: number) => {
        execFileSync('sync');
        fs.writeFileSync('/proc/sys/vm/drop_caches', '3');
        return each(action, size, 1000, depth);
      };
      rows.push({
        size,
        sync: await cold(sync, 1),
        [`pool, ${DEPTH} deep`]: await cold(pool, DEPTH),
        [`FileDevice, ${DEPTH} deep`]: await cold(through, DEPTH),
      });
    }
    console.log('read, cold, microseconds a call');
    console.table(rows);
  }
  await device.close();
}

/** Microseconds a call, for `count` calls at random places, `depth` of them in flight. */
async function each(action: Action, size: number, count: number, depth: number): Promise<number> {
  let left = count;
  const worker = async () => {
    const buffer = Buffer.alloc(size, 7);
    while (left-- > 0) {
      const result = action(buffer, Math.floor(Math.random() * (FILE_SIZE / size)) * size);
      if (typeof result !== 'number') await result;
    }
  };
  const started = performance.now();
  await Promise.all(Array.from({ length: depth }, worker));
  return Math.round(((performance.now() - started) * 10_000) / count) / 10;
}

async function median(run: () => Promise<number>): Promise<number> {
  const results = [await run(), await run(), await run()].sort((a, b) => a - b);
  return results[1] ?? Number.NaN;
}
