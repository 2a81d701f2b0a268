/** What `serve` lets in over the network, the figures that it shows, and `info --watch`. */
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { describe, expect, test } from 'vitest';
import { NbdDevice } from '../../src/index.js';
import { Bench, ended, MEBIBYTE, noise } from './cli-support.js';
import { parseOpenMetrics } from './open-metrics.js';
import { serve } from './serve-support.js';

const SIZE = 4 * MEBIBYTE;

async function prepared(): Promise<Bench> {
  const bench = new Bench();
  await bench.volume('a.img', noise(SIZE, 1));
  return bench;
}

describe('TCP', () => {
  test.each([
    [['--listen', '127.0.0.1:0'], 2, 'TLS'],
    [['--listen', '0.0.0.0:0', '--insecure'], 2, 'loopback'],
    [['--listen', '[::]:0', '--insecure'], 2, 'loopback'],
    [['--listen', 'nowhere'], 2, 'HOST:PORT'],
    [['--listen', '127.0.0.1:99999'], 2, 'HOST:PORT'],
    [['--listen', '127.0.0.1:0', '--socket', 'x'], 2, 'socket'],
    [['--listen', '127.0.0.1:0', '--tls-psk', 'missing'], 1, 'missing'],
    [['--listen', '127.0.0.1:0', '--tls-certificates', '.'], 1, 'ca-cert.pem'],
  ])('is refused with %j', async (args, status, words) => {
    const bench = await prepared();
    expect(bench.fails(['serve', 'a.img', ...args], status)).toContain(words);
    bench.ok(['list', 'a.img']);
  });

  test('is allowed without TLS on loopback, if that is said', async () => {
    const { ready } = await serve(await prepared(), ['a.img', '--listen', '127.0.0.1:0', '--insecure']);
    expect(ready.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/$/);
    await using device = await NbdDevice.open(ready.uri);
    expect(device.size).toBe(SIZE);
  });

  test('with keys lets in whoever has one, and nobody else', async () => {
    const bench = await prepared();
    writeFileSync(bench.path('keys'), '# of this test\nalice:00112233445566778899aabbccddeeff\n');
    writeFileSync(bench.path('wrong'), 'alice:ffeeddccbbaa99887766554433221100\n');
    const { ready } = await serve(bench, ['a.img', '--listen', '127.0.0.1:0', '--tls-psk', 'keys']);
    expect(ready.uri).toMatch(/^nbds:/);
    const open = (uri: string) => NbdDevice.open(uri, { connectTimeoutMs: 5000 });
    await using device = await open(`${ready.uri}?tls-username=alice&tls-psk-file=${bench.path('keys')}`);
    expect(device.size).toBe(SIZE);
    await expect(
      open(`${ready.uri}?tls-username=alice&tls-psk-file=${bench.path('wrong')}`),
    ).rejects.toThrow();
    await expect(open(ready.uri.replace('nbds:', 'nbd:'))).rejects.toThrow(/TLS/);
  });

  test('keys that cannot be read are told by file and line', async () => {
    const bench = await prepared();
    writeFileSync(bench.path('keys'), 'alice:0011\nbob:xyz\n');
    expect(bench.fails(['serve', 'a.img', '--tls-psk', 'keys'], 1)).toContain('keys, line 2');
    writeFileSync(bench.path('keys'), '\n');
    expect(bench.fails(['serve', 'a.img', '--tls-psk', 'keys'], 1)).toContain('no key');
  });
});

interface HttpAnswer {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly text: string;
}

const get = (url: string, method = 'GET'): Promise<HttpAnswer> =>
  new Promise((resolve, reject) => {
    const asked = request(url, { method, agent: false }, (response) => {
      let text = '';
      response.on('data', (part: Buffer) => {
        text += part;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode, type: response.headers['content-type'], text }),
      );
    });
    asked.on('error', reject).end();
  });

describe('metrics', () => {
  test('are OpenMetrics, and count what was done', async () => {
    const bench = await prepared();
    const server = await serve(bench, ['a.img', '--metrics', '0']);
    const url = server.ready.metrics ?? '';
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    const id = bench.snapshot('a.img');
    {
      await using device = await NbdDevice.open(server.ready.uri, { writable: true });
      await device.write(0, noise(MEBIBYTE, 2));
      await device.write(2 * MEBIBYTE, noise(MEBIBYTE, 3));
      await device.flush();
      await device.read(0, Buffer.alloc(1000));
    }
    const { status, type, text } = await get(url);
    expect(status).toBe(200);
    expect(type).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    const families = parseOpenMetrics(text);
    const value = (name: string, labels: Record<string, string> = {}) =>
      families
        .get(name)
        ?.samples.find(
          (sample) =>
            !/_(bucket|sum)$/.test(sample.name) &&
            Object.entries(labels).every(([label, wanted]) => sample.labels.get(label) === wanted),
        )?.value;
    expect(value('volsnap_nbd_requests', { type: 'write' })).toBeGreaterThanOrEqual(2);
    expect(value('volsnap_nbd_bytes', { type: 'write' })).toBe(2 * MEBIBYTE);
    expect(value('volsnap_nbd_request_seconds', { type: 'flush' })).toBeGreaterThanOrEqual(1);
    expect(value('volsnap_export_bytes', { export: 'live', operation: 'read' })).toBe(1000);
    expect(value('volsnap_export_operations', { export: 'snapshot', operation: 'read' })).toBe(0);
    expect(value('volsnap_copied_blocks', { content: 'data', volume: 'a.img' })).toBe(128);
    expect(value('volsnap_snapshots', { volume: 'a.img' })).toBe(1);
    expect(value('volsnap_hold_seconds', { volume: 'a.img' })).toBe(1);
    expect(value('volsnap_queue_length', { queue: 'held' })).toBe(0);
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(MEBIBYTE);
    expect(text).not.toContain(id); // They grow with the volumes, not with what happens to them.
    expect((await get(url.replace('/metrics', '/'))).status).toBe(404);
    expect((await get(url, 'POST')).status).toBe(405);
    const { port } = new URL(url);
    await bench.volume('b.img', MEBIBYTE);
    expect(bench.fails(['serve', 'b.img', '--metrics', port], 1)).toContain('metrics');
    expect(await server.stop()).toEqual({ status: 0, signal: null });
  });

  test('are found wanting by the reader where they are', () => {
    const good = '# TYPE a counter\na_total{b="c"} 1\n# EOF\n';
    expect(parseOpenMetrics(good).get('a')?.samples).toHaveLength(1);
    for (const bad of [
      good.replace('# EOF\n', ''),
      good.replace('a_total', 'a'),
      good.replace('"c"', 'c'),
      good.replace(' 1', ' one'),
      good.replace('# TYPE a counter\n', ''),
      '# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n# EOF\n',
      '# TYPE h histogram\nh_bucket{le="1"} 2\nh_sum 1\nh_count 2\n# EOF\n',
    ])
      expect(() => parseOpenMetrics(bad), bad).toThrow();
  });
});

describe('info --watch', () => {
  test('tells again and again what a served volume does, until it is interrupted', async () => {
    const bench = await prepared();
    const server = await serve(bench, ['a.img']);
    const watcher = bench.start(['info', 'a.img', '--watch', '0.2', '--json']);
    let out = '';
    const lines = new Promise<void>((resolve) => {
      watcher.stdout?.on('data', (text: Buffer) => {
        out += text;
        if (out.split('\n').length > 4) resolve();
      });
    });
    await using device = await NbdDevice.open(server.ready.uri, { writable: true });
    let isOver = false;
    const writing = (async () => {
      for (let i = 0; !isOver; i++) {
        await device.write((i % 32) * 65_536, noise(65_536, i % 8));
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    await lines;
    isOver = true;
    await writing;
    watcher.kill('SIGINT');
    expect(await ended(watcher)).toEqual({ status: 0, signal: null });
    const records = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(records.length).toBeGreaterThanOrEqual(4);
    expect(records[0]).toMatchObject({
      volume: 'a.img',
      pid: server.child.pid,
      connections: 1,
      snapshots: 0,
    });
    expect(Math.max(...records.map(({ writesPerSecond }) => writesPerSecond))).toBeGreaterThan(0);
    expect(Math.max(...records.map(({ writtenBytesPerSecond }) => writtenBytesPerSecond))).toBeGreaterThan(
      65_536,
    );
  });

  test('is plain lines without --json, and ends when the server does', async () => {
    const bench = await prepared();
    const server = await serve(bench, ['a.img']);
    const watcher = bench.start(['info', 'a.img', '--watch', '0.1']);
    const [first, errors] = await new Promise<[string, string]>((resolve) => {
      let text = '';
      watcher.stderr?.on('data', (part: Buffer) => {
        text += part;
      });
      watcher.stdout?.once('data', async (line: Buffer) => {
        const end = ended(watcher);
        await server.stop();
        expect((await end).status).toBe(1);
        resolve([line.toString(), text]);
      });
    });
    expect(first).toMatch(/^\S+Z, reads 0\/s .*, writes 0\/s .*, snapshots 0, used 0 B\n/);
    expect(errors).toMatch(/^volsnap: the process that serves the volume .*\n$/);
  });

  test('of a volume that nobody serves says so', async () => {
    const bench = await prepared();
    expect(bench.fails(['info', 'a.img', '--watch'], 1)).toContain('volsnap serve a.img');
    expect(bench.fails(['info', 'a.img', '--watch', 'often'], 2)).toContain('seconds');
  });
});
