/** What the command line alone shows to be wrong ends with 2, before anything is opened or made. */
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { Notes } from '../../../src/cli/output.js';
import { parseSource } from '../../../src/cli/places.js';
import { runProgram } from '../../../src/cli/program.js';

const folder = mkdtempSync(join(tmpdir(), 'volsnap-usage-'));
const image = join(folder, 'a.img');
writeFileSync(image, '');
truncateSync(image, 1024 * 1024);
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

const ID = '00112233';
/** Longer than what a snapshot holds. */
const LONG = 'x'.repeat(16_257);

interface Ending {
  readonly status: number;
  readonly code: string | undefined;
  readonly message: string | undefined;
}

/** Runs the program in this process, without a word on standard error. */
async function run(args: readonly string[]): Promise<Ending> {
  const error = vi.spyOn(Notes.prototype, 'error').mockReturnValue();
  const status = await runProgram(args);
  const [code, message] = error.mock.lastCall ?? [];
  return { status, code, message };
}

async function expectUsage(args: readonly string[], message: string): Promise<void> {
  const ending = await run(args);
  expect(ending).toEqual({ status: 2, code: 'USAGE', message: expect.stringContaining(message) });
  expect(readdirSync(folder)).toEqual(['a.img']);
}

describe('places', () => {
  test.each([
    ['nbd://', 'names no host'],
    ['nbd+unix:///x', 'which socket'],
    ['nbd://host:99999/', 'not a port'],
    ['nbd://host:0/', 'not a port'],
    ['nbd://host/?foo=1', 'no parameter foo'],
    ['nbd://alice@host/', 'a user goes with nbds'],
    ['http://host/x', 'not a scheme'],
    ['', 'Give a path'],
  ])('VOLUME %j', async (volume, message) => {
    await expectUsage(['list', volume], message);
    await expectUsage(['check', volume], message);
    await expectUsage(['create', image, volume], message);
    await expectUsage(['cache', 'serve', 'c.vci', volume], message);
  });

  test.each([
    ['read', 'nbd://@abc'],
    ['write', 'nbd://host:99999/@abc'],
    ['list', 'nbd://host@abc'],
  ])('%s %s', (command, source) => expectUsage([command, source], 'is not an NBD address'));

  test.each([
    ['list', image, '--store', ''],
    ['export', image, ID, '-o', ''],
    ['create', image, '--app-info', ''],
    ['serve', image, '--socket', ''],
    ['cache', 'info', ''],
  ])('an empty path: %s', (...args) => expectUsage(args, 'Give a path'));

  test('an @ that belongs to an address is not taken for one before an id', async () => {
    const found = async (text: string) => Object.values(await parseSource(text));
    expect(await found('nbd://host@1a')).toEqual(['nbd://host', '1a']);
    expect(await found('nbd://host/@1a')).toEqual(['nbd://host/', '1a']);
    expect(await found('nbds://alice@host/x')).toEqual(['nbds://alice@host/x', undefined]);
    expect(await found('nbds://alice@host/x@1a')).toEqual(['nbds://alice@host/x', '1a']);
    expect(await found('nbds+unix://a@/?socket=/s')).toEqual(['nbds+unix://a@/?socket=/s', undefined]);
    expect(await found('nbd+unix:///?socket=/s@1a')).toEqual(['nbd+unix:///?socket=/s', '1a']);
    expect(await found(image)).toEqual([image, undefined]);
    expect(await found(`${image}@1a`)).toEqual([image, '1a']);
  });
});

describe('numbers', () => {
  test.each(['0', '1', '1000', '1048577', '3T'])('the size of a cache image: %s', (size) =>
    expectUsage(['cache', 'create', join(folder, 'c.vci'), '--size', size], 'a multiple of 512'),
  );

  test.each(['0', '5000', '2K', '2M'])('what a cache reads around a miss: %s', (size) =>
    expectUsage(['cache', 'serve', 'c.vci', image, '--fill', size], 'a power of two'),
  );

  test.each([
    [['cache', 'serve', 'c.vci', image, '--memory', '0'], 'more than 0'],
    [['grow', image, '0'], 'more than 0'],
    [['check', image, '--scrub', '--rate', '0'], 'more than 0'],
    [['init', image, '--in-volume', '--reserve', '0'], 'more than 0'],
    [['init', image, '--in-volume', '--reserve', '4K'], 'a reserve of at least'],
    [['init', image, '--in-volume', '--protected-size', '0'], 'more than 0'],
    [['init', image, '--in-volume', '--runs', '0+1M'], 'first block'],
    [['init', image, '--in-volume', '--runs', '16K+0'], 'are no run'],
    [['init', image, '--in-volume', '--runs', '16K+300K,32K+300K'], 'overlaps'],
    [['init', image, '--in-volume', '--runs', '16K+64K'], 'runs of a store need'],
    [['create', image, '--label', LONG], 'at most 16256 bytes'],
    [['revert', image, ID, '--label', LONG], 'at most 16256 bytes'],
  ])('%s', (args, message) => expectUsage(args, message));
});

test.each(['2030-02-30', '2030-02-31T18:00Z', '2030-01-01T25:00', '2030-13-01', '2030', '2000-01-01', 'now'])(
  'a date to hold until: %s',
  (date) => expectUsage(['hold', image, ID, '--until', date], 'Give a date'),
);

describe('all sorts of wrong usage', () => {
  test.each([
    ['no such command', ['frobnicate']],
    ['no volume', ['list']],
    ['too many arguments', ['list', image, 'b.img']],
    ['an unknown option', ['list', image, '--jsn']],
    ['a size that is none', ['init', image, '--max-size', 'many']],
    ['a negative size', ['read', image, '--offset', '-1']],
    ['a negative limit', ['resize-store', image, '-5']],
    ['a size of a decimal unit', ['init', image, '--max-size', '1KB']],
    ['a size beyond counting', ['init', image, '--max-size', '9007199254740992']],
    ['half a byte', ['init', image, '--max-size', '0.5']],
    ['--in-volume without --reserve', ['init', image, '--in-volume']],
    ['--reserve without --in-volume', ['init', image, '--reserve', '5M']],
    ['two places for the store', ['init', image, '--in-volume', '--reserve', '5M', '--store', 'x']],
    ['nothing to delete', ['delete', image]],
    ['two ways to delete', ['delete', image, '--all', '--oldest']],
    ['ids and --all', ['delete', image, 'abc', '--all']],
    ['no output file', ['export', image, 'abc']],
    ['a format that nobody knows', ['export', image, 'abc', '-o', 'x', '--format', 'vhd']],
    ['an empty id', ['read', `${image}@`]],
    ['a UUID that is none', ['cache', 'create', 'x.vci', '--size', '2M', '--uuid', 'zz']],
    ['what only a repair does', ['check', image, '--changed', 'keep']],
  ])('%s', (_, args) => expectUsage(args, ''));
});

describe('options that contradict each other', () => {
  test.each([
    [['create', image, '--frozen'], '--frozen goes with --skip-unused'],
    [['create', image, `${folder}/./a.img`], 'named twice'],
    [['serve', image, image], 'named twice'],
    [['revert', image, '--cancel', '--label', 'x'], '--label goes with'],
    [['serve', image, '--read-only', '--changed', 'keep'], 'cannot be used with'],
    [['serve', image, '--read-only', '--shadow-copies', 'keep'], 'cannot be used with'],
    [['serve', image, '--read-only', '--protected-blocks', 'drop'], 'cannot be used with'],
    [['serve', image, '--read-only', '--late-areas', '5'], 'cannot be used with'],
    [['export', image, ID, '-o', '-', '--format', 'qcow2'], 'only raw goes to standard output'],
    [['export', image, '-o', '-', '--format', 'vss'], 'only raw goes to standard output'],
    [['export', image, ID, '-o', '-', '--json'], 'among the bytes on standard output'],
    [['export', image, '-o', '-'], 'say which snapshot'],
    [['init', 'nbd://host/x'], 'no folder beside it'],
    [['init', 'nbd://host/x', '--in-volume', '--reserve', '2M'], 'cannot be made longer'],
  ])('%s', (args, message) => expectUsage(args, message));
});

test('what only the volume shows is a failure, not wrong usage', async () => {
  expect(await run(['list', image])).toMatchObject({ status: 1, code: 'NOT_INITIALIZED' });
  expect(await run(['read', join(folder, 'gone.img')])).toMatchObject({ status: 1, code: 'NOT_FOUND' });
  expect(await run(['init', image, '--in-volume', '--protected-size', '9M'])).toMatchObject({
    status: 1,
    code: 'INVALID_ARGUMENT',
  });
});
