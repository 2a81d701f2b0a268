/** Benchmarks work: on sizes at which their figures mean nothing. */
import { expect, test } from 'vitest';
import { SUITES } from './suites.js';
import { markdown, medians } from './table.js';

test.each(Object.entries(SUITES))('%s has figures', async (_, suite) => {
  const figures = medians([await suite(4 * 2 ** 20)]);
  expect(figures.length).toBeGreaterThan(0);
  for (const { name, values } of figures) {
    for (const [contender, value] of Object.entries(values))
      expect(value, `${name}, ${contender}`).toBeGreaterThan(0);
  }
  expect(markdown(figures).split('\n')).toHaveLength(figures.length + 2);
});
