/** The commands of the guide to backups, run as they stand there. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Bench, expectSame, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { requireTool } from './support/writer-tools.ts';

const GUIDE = resolve(import.meta.dirname, '../../docs/guide-backup.md');

/** Blocks of commands, in the order of the guide. */
function commands(): string[] {
  const text = readFileSync(GUIDE, 'utf8');
  return [...text.matchAll(/```sh run\n([\s\S]*?)```/g)].map(([, block = '']) => block);
}

describe.skipIf(!requireTool('qemu-img'))('the guide to backups', () => {
  test('keeps its promises', () => {
    const bench = new Bench();
    bench.volume('disk.img', noise(3 * MEBIBYTE, 1));
    const write = (seed: number, at: string) =>
      `head -c 100000 /dev/zero | tr '\\0' '${seed}' | volsnap write disk.img --offset ${at}`;
    const [monday = '', tuesday = '', wednesday = '', ...rest] = commands();
    expect(rest.length).toBeGreaterThanOrEqual(4);
    const steps = [
      'mkdir backup',
      monday,
      `volsnap read disk.img@$monday > monday.raw\n${write(1, '1M')}`,
      tuesday,
      `volsnap read disk.img@$tuesday > tuesday.raw\n${write(2, '2000000')}`,
      wednesday,
      'volsnap read disk.img@$wednesday > wednesday.raw',
      ...rest,
      'for name in trial backup/wednesday; do qemu-img convert -O raw $name.qcow2 $(basename $name)-end.raw; done',
    ];
    const said = steps.map((step) => {
      // Each has its own patience; what the shell knows goes from one to the next.
      const { status, stdout, stderr } = bench.shell(
        `set -eu; [ ! -f known ] || . ./known\n${step}\nset | grep -E '^[a-z]+day=' > known || true`,
      );
      expect({ step, status, stderr }).toEqual({ step, status: 0, stderr: '' });
      return stdout;
    });
    expect(said.join('')).toContain('No errors were found on the image.');
    expect(said.join('')).toContain('Images are identical.');
    expect(said.join('')).toMatch(/backing file: tuesday\.qcow2[\s\S]*backing file: monday\.qcow2/);
    const read = (name: string) => readFileSync(bench.path(name));
    expectSame(read('restored.img'), read('tuesday.raw'));
    expectSame(read('trial-end.raw'), read('tuesday.raw'));
    expectSame(read('wednesday-end.raw'), read('wednesday.raw'));
    expect(read('wednesday.raw').equals(read('tuesday.raw'))).toBe(false);
    expect(read('tuesday.raw').equals(read('monday.raw'))).toBe(false);
    expect(read('backup/wednesday.qcow2').byteLength).toBeLessThan(MEBIBYTE / 4);
  });
});
