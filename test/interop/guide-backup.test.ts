/** The commands of the guide to backups, run as they stand there. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Bench, ended, expectSame, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { requireTool } from './support/writer-tools.ts';

const GUIDE = readFileSync(resolve(import.meta.dirname, '../../docs/guide-backup.md'), 'utf8');
const [IMAGES = '', PULL = ''] = GUIDE.split('## By pull');
const BLOCK = 16_384;

/** Blocks of commands, in the order of the text. */
const commands = (text: string, kind: string): string[] =>
  [...text.matchAll(new RegExp(`\`\`\`sh ${kind}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(([, block = '']) => block);

/** A shell that is used as the reader of the guide would use it. */
class Reader {
  readonly bench = new Bench();

  constructor() {
    this.bench.image('disk.img', noise(3 * MEBIBYTE, 1));
    this.bench.ok(['init', 'disk.img']);
  }

  /** Each step has its own patience; what the shell knows goes from one to the next. */
  run(step: string): string {
    const { status, stdout, stderr } = this.bench.shell(
      `set -eu; [ ! -f known ] || . ./known\n${step}\nset | grep -E '^([a-z]+day|uri)=' > known || true`,
    );
    expect({ step, status, stderr }).toEqual({ step, status: 0, stderr: '' });
    return stdout;
  }

  /** 100,000 bytes of a digit. */
  write(digit: number, at: number): void {
    this.run(`head -c 100000 /dev/zero | tr '\\0' ${digit} | volsnap write disk.img --offset ${at}`);
  }

  /** Keeps what a snapshot reads as. */
  keep(day: string): void {
    this.run(`volsnap read disk.img@$${day} > ${day}.raw`);
  }

  file(name: string): Buffer {
    return readFileSync(this.bench.path(name));
  }
}

describe.skipIf(!requireTool('qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy'))('the guide to backups', () => {
  test('writes images, full and incremental, and gets everything back', () => {
    const reader = new Reader();
    const [monday = '', tuesday = '', wednesday = '', ...rest] = commands(IMAGES, 'run');
    expect(rest.length).toBeGreaterThanOrEqual(4);
    reader.run(`mkdir backup\n${monday}`);
    reader.keep('monday');
    reader.write(1, MEBIBYTE);
    reader.run(tuesday);
    reader.keep('tuesday');
    reader.write(2, 2_000_000);
    reader.run(wednesday);
    reader.keep('wednesday');
    const said = rest.map((step) => reader.run(step)).join('');
    expect(said).toContain('No errors were found on the image.');
    expect(said).toContain('Images are identical.');
    expect(said).toMatch(/backing file: tuesday\.qcow2[\s\S]*backing file: monday\.qcow2/);
    reader.run('qemu-img convert -O raw trial.qcow2 trial.img');
    reader.run('qemu-img convert -O raw backup/wednesday.qcow2 late.img');
    expectSame(reader.file('restored.img'), reader.file('tuesday.raw'));
    expectSame(reader.file('trial.img'), reader.file('tuesday.raw'));
    expectSame(reader.file('late.img'), reader.file('wednesday.raw'));
    expect(reader.file('wednesday.raw').equals(reader.file('tuesday.raw'))).toBe(false);
    expect(reader.file('tuesday.raw').equals(reader.file('monday.raw'))).toBe(false);
    expect(reader.file('backup/wednesday.qcow2').byteLength).toBeLessThan(MEBIBYTE / 4);
  }, 120_000);

  test('fetches through NBD what changed', async () => {
    const reader = new Reader();
    const [serve = ''] = commands(PULL, 'serve');
    const [thursday = '', friday = '', fetching = '', commit = '', saturday = ''] = commands(PULL, 'run');
    const [program, ...args] = serve.trim().split(' ');
    expect(program).toBe('volsnap');
    const server = reader.bench.start(args);
    if (server.stdout === null) throw new Error('standard output is a pipe');
    await once(server.stdout, 'data'); // It says where it can be reached.
    reader.run(thursday);
    expectSame(reader.file('thursday.img'), noise(3 * MEBIBYTE, 1));
    reader.write(3, 10 * BLOCK);
    const map = reader.run(friday).trim().split('\n');
    const changed = map.map((line) => line.trim().split(/\s+/)).filter(([, , type]) => type === '1');
    expect(changed).toEqual([[String(10 * BLOCK), String(7 * BLOCK), '1', 'dirty']]);
    reader.keep('friday');
    reader.write(4, 0);
    expect(reader.run(fetching)).toBe('Images are identical.\n');
    expect(reader.file('friday.qcow2').byteLength).toBeLessThan(MEBIBYTE / 2);
    expect(reader.file('thursday.img').equals(reader.file('friday.raw'))).toBe(false);
    reader.run(commit);
    expectSame(reader.file('thursday.img'), reader.file('friday.raw'));
    const extents: { start: number; length: number; data: boolean }[] = JSON.parse(
      reader.run(saturday).replace(/^[^[]*/, ''),
    );
    expect(extents.filter(({ data }) => !data)).toMatchObject([{ start: 0, length: 7 * BLOCK }]);
    // As the guide says: exports work meanwhile.
    reader.run('volsnap export disk.img $saturday -o saturday.qcow2 --format qcow2');
    reader.keep('saturday');
    const compared = reader.run('qemu-img compare -F raw saturday.qcow2 saturday.raw');
    expect(compared).toBe('Images are identical.\n');
    server.kill('SIGTERM');
    expect(await ended(server)).toEqual({ status: 0, signal: null });
  }, 120_000);
});
