/** `npx tsx test/unit/cache/million.ts [OPERATIONS]`: the tree, the order of use and the block map against plain lists, and the block map alone. */
import { SeededRandom } from '../../../src/testing/index.js';
import { ModelTree } from './model-tree.js';

const operations = Number(process.argv[2] ?? 1_000_000);
const started = performance.now();
const model = await ModelTree.make(new SeededRandom('million'));
await model.compare(operations);
console.log(
  `${operations} operations, ${model.levels} levels, ${((performance.now() - started) / 1000).toFixed(1)} s`,
);
