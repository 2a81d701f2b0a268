/** A volume with its snapshots inside, as a file on a web server: behind nbdkit's curl plugin, which asks for ranges. */
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { describe, expect, onTestFinished, test } from 'vitest';
import { MemoryContent, MemoryDevice } from '../../src/device/memory-device.ts';
import { InVolumeStore, NbdDevice, Volume } from '../../src/index.ts';
import { Bench, expectSame, MEBIBYTE, noise, PROGRAM } from '../integration/cli-support.ts';
import { nbdkit } from './support/nbd-servers.ts';
import { requireTool, run } from './support/writer-tools.ts';

const hasServer = requireTool('nbdkit', 'nbdkit curl');
const SIZE = 4 * MEBIBYTE;

/** An image, and what its snapshot and its volume hold. */
async function published() {
  const content = new MemoryContent(2 * SIZE);
  const store = new InVolumeStore({ protectedSize: SIZE });
  await Volume.initialize(new MemoryDevice(content), { store });
  const volume = await Volume.open(new MemoryDevice(content), { store });
  const before = noise(SIZE, 1);
  const now = Buffer.from(before);
  now.set(noise(MEBIBYTE, 2), MEBIBYTE);
  await volume.write(0, before);
  const { id } = await volume.createSnapshot({ label: 'before' });
  await volume.write(MEBIBYTE, now.subarray(MEBIBYTE, 2 * MEBIBYTE));
  await volume.close();
  const image = new Uint8Array(content.size);
  await new MemoryDevice(content).read(0, image);
  return { image, id, before, now };
}

/** Serves the image over HTTP, in ranges. */
class WebServer {
  /** Gives nothing any more, and still says what it has. */
  isBroken = false;
  readonly #server: Server;

  private constructor(image: Uint8Array) {
    this.#server = createServer((request, response) => {
      const asked = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
      const [from, to] = asked === null ? [0, image.byteLength - 1] : [Number(asked[1]), Number(asked[2])];
      response.writeHead(this.isBroken && request.method !== 'HEAD' ? 503 : asked === null ? 200 : 206, {
        'accept-ranges': 'bytes',
        'content-length': to - from + 1,
        ...(asked === null ? {} : { 'content-range': `bytes ${from}-${to}/${image.byteLength}` }),
      });
      response.end(request.method === 'HEAD' ? undefined : image.subarray(from, to + 1));
    });
  }

  static async start(image: Uint8Array): Promise<WebServer> {
    const web = new WebServer(image);
    await new Promise<void>((resolve) => web.#server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      web.#server.close();
      web.#server.closeAllConnections();
    });
    return web;
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the web server does not listen');
    return `http://127.0.0.1:${address.port}/disk.img`;
  }
}

describe.skipIf(!hasServer)('a volume on a web server', () => {
  test('is read with its snapshots, and copied out', async () => {
    const bench = new Bench();
    const { image, id, before, now } = await published();
    const { url } = await WebServer.start(image);
    const uri = (await nbdkit(bench.folder, '--readonly', 'curl', url)).uri();

    await using volume = await Volume.open(await NbdDevice.open(uri));
    expectSame(Buffer.from(await volume.read(0, SIZE)), now);
    const [snapshot] = volume.snapshots;
    expect(snapshot).toMatchObject({ id, label: 'before' });
    expectSame(Buffer.from((await snapshot?.read(0, SIZE)) ?? []), before);

    const out = bench.path('before.img');
    expect(await run(process.execPath, [PROGRAM, 'export', uri, id, '-o', out])).toMatchObject({ status: 0 });
    expectSame(readFileSync(out), before);
    const checked = await run(process.execPath, [PROGRAM, 'check', uri, '--scrub']);
    expect(checked).toMatchObject({ status: 0, output: expect.stringContaining('sound') });
  });

  test('cannot be written, and fails in a line when the server does, with nothing left behind', async () => {
    const bench = new Bench();
    const { image, id } = await published();
    const web = await WebServer.start(image);
    const uri = (await nbdkit(bench.folder, '--readonly', 'curl', web.url)).uri();
    const create = await run(process.execPath, [PROGRAM, 'create', uri]);
    expect(create).toEqual({ status: 1, output: expect.stringMatching(/^volsnap: .* for reading only\n$/) });
    web.isBroken = true;
    const files = readdirSync(bench.folder);
    const copy = await run(process.execPath, [PROGRAM, 'export', uri, id, '-o', bench.path('before.img')]);
    expect(copy).toEqual({ status: 1, output: expect.stringMatching(/^volsnap: cannot read .* EIO .*\n$/) });
    expect(readdirSync(bench.folder)).toEqual(files);
  });
});
