/** A volume with its store on a file system that cannot be written. Needs root for a tmpfs; skipped, and said so, elsewhere. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { NbdDevice } from '../../src/index.js';
import { describeUnless } from '../interop/support/describe-unless.js';
import { Bench, MEBIBYTE, noise } from './cli-support.js';
import { serve } from './serve-support.js';

const cannotMount = process.getuid?.() === 0 ? undefined : 'mounting a tmpfs takes root';

describeUnless(cannotMount, 'read-only media', () => {
  test('are listed, checked and served, with a socket elsewhere', async () => {
    const bench = new Bench();
    const media = bench.path('media');
    mkdirSync(media);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', media]);
    onTestFinished(() => void execFileSync('umount', [media]));
    const content = noise(MEBIBYTE, 1);
    await bench.volume('media/a.img', content);
    const id = bench.snapshot('media/a.img');
    bench.ok(['write', 'media/a.img'], noise(1000, 2));
    execFileSync('mount', ['-o', 'remount,ro', media]);
    expect(bench.json(['list', 'media/a.img'])).toHaveLength(1);
    expect(bench.json(['check', 'media/a.img', '--scrub']).sound).toBe(true);
    expect(bench.fails(['create', 'media/a.img'], 1)).toContain('read-only');
    const server = await serve(bench, ['media/a.img', '--read-only']);
    await using device = await NbdDevice.open(server.ready.uri.replace('/?', `/snapshot/${id}?`));
    const found = new Uint8Array(MEBIBYTE);
    await device.read(0, found);
    expect(Buffer.compare(found, content)).toBe(0);
    expect((await server.stop()).status).toBe(0);
  });
});
