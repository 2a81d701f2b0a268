/** `volsnap cache`, as its users run it. */
import { once } from 'node:events';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DeviceExport, FixedCatalog, MemoryDevice, NbdDevice, NbdServer } from '../../src/index.js';
import { Bench, ended, MEBIBYTE, noise } from './cli-support.js';

const COMMANDS = ['create', 'info', 'check', 'dump', 'compact', 'serve'];

test('the help of the group, and of each command, has an example', () => {
  const bench = new Bench();
  expect(bench.ok(['cache', '--help']).stdout).toMatchSnapshot();
  for (const command of COMMANDS) {
    const { stdout } = bench.ok(['cache', command, '--help']);
    expect(stdout).toMatch(new RegExp(`^Examples?:\n  \\$ volsnap cache ${command} `, 'm'));
    expect(stdout).toContain('--json');
    expect(stdout).toMatchSnapshot();
  }
});

test('an image is made, shown, checked, dumped and made shorter', () => {
  const bench = new Bench();
  const made = bench.ok(['cache', 'create', 'disk.vci', '--size', '8M']).stdout;
  expect(made).toBe('disk.vci is an empty cache image of 8 MiB, dynamic.\n');
  expect(statSync(bench.path('disk.vci')).size).toBeLessThan(MEBIBYTE);
  expect(bench.json(['cache', 'info', 'disk.vci'])).toMatchObject({
    type: 'dynamic',
    size: 8 * MEBIBYTE,
    extents: 0,
    isClean: true,
  });
  expect(bench.ok(['cache', 'info', 'disk.vci']).stdout).toMatch(/^ {2}cached +0 B/m);
  expect(bench.ok(['cache', 'check', 'disk.vci']).stdout).toBe('');
  expect(bench.json(['cache', 'check', 'disk.vci'])).toEqual({ sound: true, problems: [] });
  expect(bench.ok(['cache', 'dump', 'disk.vci']).stdout).toContain('leaf at ');
  const { size } = statSync(bench.path('disk.vci'));
  expect(bench.json(['cache', 'compact', 'disk.vci'])).toMatchObject({ fileSize: size, savedBytes: 0 });
  expect(bench.ok(['cache', 'compact', 'disk.vci']).stdout).toContain('about as short as it can be');
  expect(statSync(bench.path('disk.vci')).size).toBe(size);
  expect(bench.json(['cache', 'create', 'fixed.vci', '--size', '2M', '--fixed'])).toMatchObject({
    type: 'fixed',
  });
  expect(bench.ok(['cache', 'compact', 'fixed.vci']).stdout).toContain('is fixed, and keeps its 2 MiB');
  expect(statSync(bench.path('fixed.vci')).size).toBe(2 * MEBIBYTE);
});

test('what is wrong is said, and nothing is overwritten by mistake', () => {
  const bench = new Bench();
  bench.image('disk.img', noise(4096, 1));
  expect(bench.fails(['cache', 'create', 'disk.img', '--size', '8M'], 1)).toContain('exists');
  expect(bench.fails(['cache', 'create', 'disk.img', '--size', '8M', '--replace'], 1)).toContain(
    'no cache image',
  );
  expect(bench.fails(['cache', 'create', 'small.vci', '--size', '8K'], 2)).toContain('1 MiB');
  expect(existsSync(bench.path('small.vci'))).toBe(false);
  bench.fails(['cache', 'create', 'disk.vci'], 2);
  expect(bench.fails(['cache', 'info', 'disk.img'], 1)).toContain('no cache image');
  expect(bench.fails(['cache', 'check', 'gone.vci'], 2)).toContain('gone.vci');

  bench.ok(['cache', 'create', 'disk.vci', '--size', '8M']);
  const device = new Uint8Array(noise(64, 1));
  writeFileSync(bench.path('disk.vci'), Buffer.concat([Buffer.from('VCI\0\x01\0\0\0', 'latin1'), device]), {
    flag: 'r+',
  });
  const { status, stdout } = bench.run(['cache', 'check', 'disk.vci']);
  expect({ status, lines: stdout.trim().split('\n').length }).toEqual({ status: 1, lines: 1 });
});

test('a device is served through an image, and the cache is warm after a restart', async () => {
  const bench = new Bench();
  const content = noise(4 * MEBIBYTE, 7);
  let reads = 0;
  class Slow extends MemoryDevice {
    override read(offset: number, target: Uint8Array): Promise<void> {
      reads++;
      return super.read(offset, target);
    }
  }
  await using server = new NbdServer(new FixedCatalog([new DeviceExport('', new Slow(content))]));
  await server.listen({ path: bench.path('backing.sock') });
  bench.ok(['cache', 'create', 'disk.vci', '--size', '16M']);
  for (const round of ['cold', 'warm']) {
    reads = 0;
    const child = bench.start([
      'cache',
      'serve',
      'disk.vci',
      `nbd+unix:///?socket=${bench.path('backing.sock')}`,
      '--json',
    ]);
    const [line] = await once(child.stdout ?? child, 'data');
    const { uri } = JSON.parse(String(line)) as { uri: string };
    {
      await using device = await NbdDevice.open(uri, {
        writable: true,
      });
      const target = Buffer.alloc(content.byteLength);
      await device.read(0, target);
      expect(target.equals(Buffer.from(content))).toBe(true);
      await device.write(MEBIBYTE, noise(8192, 9));
      content.set(noise(8192, 9), MEBIBYTE);
      await device.flush();
    }
    child.kill('SIGTERM');
    expect(await ended(child)).toEqual({ status: 0, signal: null });
    if (round === 'warm') expect(reads).toBe(0);
    else expect(reads).toBeGreaterThan(0);
  }
  expect(bench.json(['cache', 'info', 'disk.vci'])).toMatchObject({ isClean: true, dataBytes: 4 * MEBIBYTE });
});
