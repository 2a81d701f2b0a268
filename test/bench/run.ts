/**
 * `npm run bench -- [--size MIB] [--runs N] [--only NAME] [--json FILE]`
 *
 * Each run measures all contenders in turn; what is printed are medians. Ratios of one run are what counts: absolute
 * figures move with the machine and the hour.
 */
import { writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { SUITES } from './suites.js';
import { type Figures, markdown, medians } from './table.js';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '256' },
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
    json: { type: 'string', default: 'bench-results.json' },
  },
});
const size = Number(values.size) * 2 ** 20;
const results: Record<string, Figures[]> = {};
console.log(
  `Node ${process.version}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model}, ${values.size} MiB, median of ${values.runs}\n`,
);
for (const [name, suite] of Object.entries(SUITES)) {
  if (values.only !== undefined && values.only !== name) continue;
  const runs: Figures[][] = [];
  for (let i = 0; i < Number(values.runs); i++) runs.push(await suite(size));
  results[name] = medians(runs);
  console.log(`${markdown(results[name])}\n`);
}
await writeFile(values.json, `${JSON.stringify({ node: process.version, size, results }, undefined, 2)}\n`);
