/** The commands of the guide to virtual machines, run as they stand there. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Bench, ended, expectSame, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { requireTool } from './support/writer-tools.ts';

const GUIDE = readFileSync(resolve(import.meta.dirname, '../../docs/guide-vm.md'), 'utf8');

const commands = (kind: string): string[] =>
  [...GUIDE.matchAll(new RegExp(`\`\`\`sh ${kind}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    ([, block = '']) => block,
  );

describe.skipIf(!requireTool('nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-storage-daemon'))(
  'the guide to virtual machines',
  () => {
    test('serves a disk, takes snapshots of it and copies them out', async () => {
      const bench = new Bench();
      const content = noise(4 * MEBIBYTE, 1);
      bench.image('disk.img', content);
      const [init = '', snapshots = '', copies = ''] = commands('run');
      const run = (script: string) => {
        const { status, stdout, stderr } = bench.shell(`set -eu\n${script}`);
        expect({ script, status, stderr }).toEqual({ script, status: 0, stderr: '' });
        return stdout;
      };
      run(init);
      const [, ...args] = (commands('serve')[0] ?? '').trim().split(' ');
      const server = bench.start(args);
      const [line] = await once(server.stdout ?? server, 'data');
      expect(String(line)).toBe(`nbd+unix:///?socket=${bench.path('disk.sock')}\n`);
      expect(run(`${snapshots}\n${copies}`)).toMatch(/before the upgrade[\s\S]*: sound/);
      expectSame(readFileSync(bench.path('before.img')), content);
      run('qemu-img compare -f qcow2 -F raw before.qcow2 before.img > compared');
      // What the machine would be given opens the disk.
      const [blockdev = ''] = commands('blockdev');
      run(
        `qemu-storage-daemon -${blockdev.trim()} --nbd-server addr.type=unix,addr.path=machine.sock --export type=nbd,id=x,node-name=disk,writable=on --daemonize --pidfile pid
         nbdcopy 'nbd+unix:///disk?socket=machine.sock' machine.img
         kill $(cat pid)`,
      );
      expectSame(readFileSync(bench.path('machine.img')), content);
      const end = ended(server);
      server.kill('SIGTERM');
      expect(await end).toEqual({ status: 0, signal: null });
    });
  },
);
