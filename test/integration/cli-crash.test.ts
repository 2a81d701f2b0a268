/** The program is killed without warning; nothing that a snapshot holds is lost. */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Bench, ended, feed, MEBIBYTE, noise } from './cli-support.js';

const SIZE = 24 * MEBIBYTE;

describe.each([
  ['a directory store', []],
  ['an in-volume store', ['--in-volume', '--reserve', '128M']],
])('kill -9 in the midst of write, %s', (_, options) => {
  test.each([0, 20, 80])('after %i ms', async (delay) => {
    const bench = new Bench();
    const content = noise(SIZE, 1);
    await bench.volume('a.img', content, ...options);
    const id = bench.snapshot('a.img', '--label', 'before');
    const writer = bench.start(['write', 'a.img']);
    const input = noise(SIZE, 2);
    await feed(writer, input.subarray(0, 8 * MEBIBYTE));
    writer.stdin?.write(input.subarray(8 * MEBIBYTE));
    await sleep(delay);
    writer.kill('SIGKILL');
    expect(await ended(writer)).toEqual({ status: null, signal: 'SIGKILL' });
    // First through a reader, which may change nothing, then through a writer, which puts things right.
    expect(hashOf(bench.run(['read', `a.img@${id}`]).bytes)).toBe(hashOf(content));
    expect(bench.run(['create', 'a.img']).status).toBe(0);
    expect(hashOf(bench.read(`a.img@${id}`))).toBe(hashOf(content));
    expect(bench.json(['check', 'a.img', '--scrub']).problems).toEqual([]);
    bench.ok(['write', 'a.img'], input);
    expect(hashOf(bench.read(`a.img@${id}`))).toBe(hashOf(content));
  });
});

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
