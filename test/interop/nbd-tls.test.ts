/** Who may connect to `volsnap serve` over TCP: those with the right certificate or key, and nobody else. */
import { mkdir, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { Bench, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { makeCertificates } from './support/nbd-servers.ts';
import { Served } from './support/served.ts';
import { requireTool, run, runWell } from './support/writer-tools.ts';

const SIZE = MEBIBYTE;

async function setUp() {
  const bench = new Bench();
  const volume = await bench.volume('disk.img', noise(SIZE, 1));
  const pki = async (name: string) => {
    await mkdir(bench.path(name));
    await makeCertificates(bench.path(name));
    return bench.path(name);
  };
  return { bench, volume, pki };
}

const withParameters = (uri: string, parameters: string): string => `${uri}?${parameters}`;

describe.skipIf(!requireTool('nbdinfo', 'nbdcopy', 'qemu-img', 'openssl'))('TLS', () => {
  test('lets in who has a certificate of the authority', async () => {
    const { bench, volume, pki } = await setUp();
    const ours = await pki('pki');
    const served = await Served.startTcp(bench, volume, '--tls-certificates', ours);
    const uri = withParameters(served.uri(), `tls-certificates=${ours}`);
    expect(await runWell('nbdinfo', '--size', uri)).toBe(`${SIZE}\n`);
    await runWell('nbdcopy', uri, bench.path('copy.img'));
    await runWell('cmp', bench.path('copy.img'), bench.path(volume));
    const { hostname, port } = new URL(served.uri());
    await runWell(
      'qemu-img',
      'compare',
      '--object',
      `tls-creds-x509,id=tls,endpoint=client,dir=${ours}`,
      '--image-opts',
      `driver=nbd,host=${hostname},port=${port},tls-creds=tls`,
      `driver=file,filename=${bench.path(volume)}`,
    );
  });

  test('gives nothing to who has another, none, or does not use TLS', async () => {
    const { bench, volume, pki } = await setUp();
    const served = await Served.startTcp(bench, volume, '--tls-certificates', await pki('pki'));
    const theirs = await pki('theirs');
    await mkdir(bench.path('none'));
    await runWell('cp', `${bench.path('pki')}/ca-cert.pem`, bench.path('none'));
    // Whoever trusts the server still has to prove itself.
    await runWell('cp', `${bench.path('pki')}/ca-cert.pem`, theirs);
    const plain = served.uri().replace('nbds:', 'nbd:');
    for (const uri of [
      withParameters(served.uri(), `tls-certificates=${theirs}`),
      withParameters(served.uri(), `tls-certificates=${bench.path('none')}`),
      plain,
    ]) {
      for (const asked of [['--size'], ['--list', '--json']]) {
        const { status, output } = await run('nbdinfo', [...asked, uri]);
        expect(status).not.toBe(0);
        expect(output).not.toContain(String(SIZE));
        expect(output).not.toContain('live');
      }
    }
    // The server is none the worse for it.
    const uri = withParameters(served.uri(), `tls-certificates=${bench.path('pki')}`);
    expect(await runWell('nbdinfo', '--size', uri)).toBe(`${SIZE}\n`);
  });

  test('lets in who knows a key', async () => {
    const { bench, volume } = await setUp();
    const keys = bench.path('keys.psk');
    await writeFile(keys, `alice:${'0123456789abcdef'.repeat(4)}\n`);
    await writeFile(bench.path('wrong.psk'), `alice:${'00'.repeat(32)}\n`);
    const served = await Served.startTcp(bench, volume, '--tls-psk', keys);
    const uri = served.uri().replace('nbds://', 'nbds://alice@');
    expect(await runWell('nbdinfo', '--size', withParameters(uri, `tls-psk-file=${keys}`))).toBe(`${SIZE}\n`);
    const { status } = await run('nbdinfo', [
      '--size',
      withParameters(uri, `tls-psk-file=${bench.path('wrong.psk')}`),
    ]);
    expect(status).not.toBe(0);
  });
});

describe('TCP without TLS', () => {
  test('is refused, and on loopback wants to be asked for', async () => {
    const { bench, volume } = await setUp();
    expect(bench.fails(['serve', volume, '--listen', '127.0.0.1:0'], 2)).toMatch(/TLS/);
    expect(bench.fails(['serve', volume, '--listen', '0.0.0.0:0', '--insecure'], 2)).toMatch(/loopback/);
    const served = await Served.startTcp(bench, volume, '--insecure');
    expect(served.uri()).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/$/);
    expect(await runWell('nbdinfo', '--size', served.uri())).toBe(`${SIZE}\n`);
  });
});
