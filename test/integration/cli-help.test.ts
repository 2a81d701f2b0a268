/** What the program says about itself. */
import { expect, test } from 'vitest';
import { Bench } from './cli-support.js';

const COMMANDS = [
  'init',
  'create',
  'list',
  'info',
  'read',
  'write',
  'copy-range',
  'export',
  'diff',
  'map',
  'delete',
  'hold',
  'release',
  'set-snapshot',
  'grow',
  'resize-store',
  'policy',
  'check',
  'serve',
];

test('the help', () => {
  const { stdout } = new Bench().ok(['--help']);
  for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
  expect(stdout).toMatchSnapshot();
});

test.each(COMMANDS)('the help of %s has an example, --json and --store', (command) => {
  const bench = new Bench();
  const { stdout } = bench.ok([command, '--help']);
  expect(stdout).toMatch(new RegExp(`^Examples?:\n  \\$ volsnap ${command} `, 'm'));
  expect(stdout).toContain('--json');
  expect(stdout).toContain('--store');
  expect(stdout).toMatchSnapshot();
  expect(bench.ok(['help', command]).stdout).toBe(stdout);
});

test('the version', () => {
  expect(new Bench().ok(['--version']).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
