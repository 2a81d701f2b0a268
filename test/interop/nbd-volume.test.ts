/** A protected volume that is a qcow2 image behind qemu-nbd; and the program on such volumes. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DirectoryStore, type Snapshot, Volume } from '../../src/index.ts';
import { NbdDevice } from '../../src/nbd/client/nbd-device.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Bench, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { image, nbdkit, qemuNbd, testFolder } from './support/nbd-servers.ts';
import { requireTool } from './support/writer-tools.ts';

const hasServers = requireTool('qemu-nbd', 'qemu-img', 'nbdkit');
const SECTOR = 512;

const readAll = async (source: Volume | Snapshot): Promise<Uint8Array> => source.read(0, source.size);

/** What each sector may hold: what it held at the last flush, or something written since. */
class Possible {
  #flushed: Uint8Array;
  readonly #since: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  constructor(content: Uint8Array) {
    this.#flushed = content.slice();
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#since.push({ offset, bytes });
  }

  /** This is what it holds, durably. Nothing may be in flight. */
  settle(content: Uint8Array): void {
    this.#since.length = 0;
    this.#flushed = content.slice();
  }

  /** Sectors of `content` that hold something else. */
  wrong(content: Uint8Array): number[] {
    const wrong: number[] = [];
    for (let at = 0; at < content.byteLength; at += SECTOR) {
      const is = (bytes: Uint8Array, from: number) =>
        Buffer.compare(content.subarray(at, at + SECTOR), bytes.subarray(from, from + SECTOR)) === 0;
      const written = this.#since.some(
        ({ offset, bytes }) =>
          offset <= at && at + SECTOR <= offset + bytes.byteLength && is(bytes, at - offset),
      );
      if (!written && !is(this.#flushed, at)) wrong.push(at / SECTOR);
    }
    return wrong;
  }
}

describe.skipIf(!hasServers)('a volume behind qemu-nbd', () => {
  test.each(['qcow2', 'vmdk'])(
    'in a %s image keeps its snapshots when the server is killed in the middle of writes',
    async (format) => {
      const folder = testFolder();
      const random = new SeededRandom(`killed ${format}`);
      const size = 8 * MEBIBYTE;
      const first = random.fill(new Uint8Array(size));
      const path = await image(folder, format, first);
      const store = new DirectoryStore(join(folder, 'store'));
      const start = () => qemuNbd(folder, '-f', format, path);
      let server = await start();
      const open = async () => {
        const device = await NbdDevice.open(server.uri(), { writable: true, reconnectTimeoutMs: 1000 });
        onTestFinished(() => device.close());
        return device;
      };
      await Volume.initialize(await open(), { store });
      const possible = new Possible(first);
      const snapshots: Uint8Array[] = [];

      for (let round = 0; round < 3; round++) {
        const volume = await Volume.open(await open(), { store });
        const content = await readAll(volume);
        expect(possible.wrong(content), `round ${round}`).toEqual([]);
        for (const [index, snapshot] of volume.snapshots.entries()) {
          const wanted = snapshots[index] ?? new Uint8Array(0);
          expect(Buffer.compare(await readAll(snapshot), wanted), `round ${round}, snapshot ${index}`).toBe(
            0,
          );
        }
        // Opening has flushed, so what was read stays.
        possible.settle(content);
        await volume.createSnapshot({ label: `round ${round}` });
        snapshots.push(content);

        let answered = 0;
        let failed = 0;
        const write = async () => {
          while (failed === 0) {
            const length = SECTOR * (1 + random.below(200));
            const offset = SECTOR * random.below((size - length) / SECTOR);
            const bytes = random.fill(new Uint8Array(length));
            possible.write(offset, bytes);
            try {
              await volume.write(offset, bytes);
              answered++;
            } catch {
              failed++;
            }
            if (answered === 60) await server.kill();
          }
        };
        await Promise.all(Array.from({ length: 8 }, write));
        expect(answered).toBeGreaterThanOrEqual(60);
        await volume.close().catch(() => undefined); // It cannot say that it was closed well.
        server = await start();
      }
      const volume = await Volume.open(await open(), { store });
      expect(possible.wrong(await readAll(volume))).toEqual([]);
      expect(volume.snapshots).toHaveLength(3);
      for (const [index, snapshot] of volume.snapshots.entries())
        expect(Buffer.compare(await readAll(snapshot), snapshots[index] ?? new Uint8Array(0))).toBe(0);
      await volume.close();
    },
  );
});

describe.skipIf(!hasServers)('the program on an NBD address', () => {
  test('does everything that it does on a file, with a store elsewhere', async () => {
    const bench = new Bench();
    const server = await nbdkit(testFolder(), 'memory', '4M');
    const uri = server.uri();
    const store = ['--store', 'store'];
    expect(bench.fails(['list', uri], 1)).toContain('--store DIR');
    expect(bench.fails(['init', uri], 2)).toContain('--store DIR');
    bench.ok(['init', uri, ...store]);
    bench.ok(['write', uri, ...store], noise(MEBIBYTE, 1));
    const id = bench.snapshot(uri, ...store, '--label', 'one');
    bench.ok(['write', uri, '--offset', '512K', ...store], noise(MEBIBYTE, 2));
    expect(bench.json(['list', uri, ...store])).toMatchObject([{ id, label: 'one', state: 'ok' }]);
    expect(bench.json(['info', uri, ...store])).toMatchObject({ volume: uri, volumeSize: 4 * MEBIBYTE });
    expect(bench.json(['diff', uri, id, ...store])).toEqual([{ offset: MEBIBYTE / 2, length: MEBIBYTE }]);
    expect(bench.json(['map', uri, ...store])).toMatchObject({ changedBytes: MEBIBYTE });
    expect(bench.read(`${uri}@${id}`, ...store, '--length', '1M').equals(noise(MEBIBYTE, 1))).toBe(true);
    expect(bench.read(uri, ...store, '--offset', '512K', '--length', '1M').equals(noise(MEBIBYTE, 2))).toBe(
      true,
    );
    bench.ok(['export', uri, id, '-o', 'one.img', ...store]);
    bench.ok(['export', uri, '--format', 'vss', '-o', 'all.img', ...store]);
    expect(bench.read(`all.img@${id}`).subarray(0, MEBIBYTE).equals(noise(MEBIBYTE, 1))).toBe(true);
    expect(bench.json(['check', uri, '--scrub', ...store])).toMatchObject({ sound: true });
    bench.ok(['resize-store', uri, '1G', ...store]);
    bench.ok(['delete', uri, '--oldest', ...store]);
    expect(bench.json(['list', uri, ...store])).toEqual([]);
    expect(existsSync(bench.path('one.img'))).toBe(true);
    // Some twenty processes, one after the other.
  }, 180_000);

  test('keeps snapshots inside where the device has room behind the volume', async () => {
    const bench = new Bench();
    const server = await nbdkit(testFolder(), 'memory', '16M');
    const uri = server.uri();
    bench.ok(['init', uri, '--in-volume', '--protected-size', '8M']);
    bench.ok(['write', uri], noise(MEBIBYTE, 1));
    const id = bench.snapshot(uri);
    bench.ok(['write', uri], noise(MEBIBYTE, 2));
    expect(bench.read(`${uri}@${id}`, '--length', '1M').equals(noise(MEBIBYTE, 1))).toBe(true);
    expect(bench.json(['check', uri, '--scrub'])).toMatchObject({ sound: true });
  });

  test('says what is wrong with an address, in a line', async () => {
    const bench = new Bench();
    expect(bench.fails(['list', 'nbd://127.0.0.1:1/'], 1)).toContain('no server listens');
    expect(bench.fails(['list', 'nbd+unix:///?socket=/nowhere'], 1)).toContain('there is no socket');
    expect(bench.fails(['list', 'http://host/'], 2)).toContain('http is not a scheme');
    expect(bench.fails(['list', 'nbds://host/?tls-certs=x'], 2)).toContain('no parameter tls-certs');
    const server = await nbdkit(testFolder(), '--readonly', 'memory', '4M');
    expect(bench.fails(['init', server.uri(), '--store', 'store'], 1)).toContain('for reading only');
  });
});
