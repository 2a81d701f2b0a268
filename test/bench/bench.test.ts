/** Benchmarks work: on sizes at which their figures mean nothing. */
import { describe, expect, test } from 'vitest';
import { requireTool } from '../interop/support/writer-tools.js';
import { CONTENDERS } from './nbd/contenders.js';
import { Unit } from './nbd/report.js';
import { TARGETS } from './nbd/targets.js';
import { nbd } from './nbd.js';
import { SUITES, shown } from './suites.js';
import { markdown, medians } from './table.js';

const { nbd: _, ...inProcess } = SUITES;

test.each(Object.entries(inProcess))('%s has figures', async (_, suite) => {
  const figures = medians([await suite(4 * 2 ** 20)]);
  expect(figures.length).toBeGreaterThan(0);
  for (const { name, unit, values } of figures) {
    // Of so few copies less is held than what happens to be collected meanwhile.
    const least = unit === 'MiB' ? Number.NEGATIVE_INFINITY : 0;
    for (const [contender, value] of Object.entries(values))
      expect(value, `${name}, ${contender}`).toBeGreaterThan(least);
  }
  expect(markdown(figures).split('\n')).toHaveLength(figures.length + 2);
});

describe.skipIf(!requireTool('fio', 'qemu-storage-daemon', 'qemu-img', 'nbdkit'))('nbd', () => {
  test('measures every contender, and every ratio that is wanted', { timeout: 300_000 }, async () => {
    const figures = medians([await nbd(4 * 2 ** 20)]);
    const speeds = figures.filter(({ unit }) => unit === Unit.speed);
    for (const { name, values } of speeds) {
      for (const [contender, value] of Object.entries(values))
        expect(value, `${name}, ${contender}`).toBeGreaterThan(0);
    }
    for (const { name } of CONTENDERS)
      expect(
        speeds.some(({ values }) => name in values),
        name,
      ).toBe(true);
    expect(figures.filter(({ unit }) => unit === Unit.ratio)).toHaveLength(TARGETS.length);
    expect(shown('nbd', figures)).not.toMatch(/not installed|not measured/);
  });
});
