import { expect, test } from 'vitest';
import { SeededRandom } from '../../../src/testing/index.js';
import { ModelTree } from './model-tree.js';

test('twenty thousand insertions, cuts and look-ups do what a plain list does', async () => {
  const model = await ModelTree.make(new SeededRandom('tree'));
  await model.compare(20_000);
  expect(model.levels).toBeGreaterThan(1);
});

test('the same where almost no node stays in memory', async () => {
  const model = await ModelTree.make(new SeededRandom('small memory'), 1);
  await model.compare(3000);
});
