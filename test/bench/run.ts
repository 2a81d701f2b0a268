/**
 * `npm run bench -- [--size MIB] [--runs N] [--only NAME] [--json FILE]`, and for `nbd`
 * `[--contenders REGEXP] [--workloads REGEXP]`.
 *
 * Each run measures all contenders in turn; what is printed are medians. Ratios of one run are what counts: absolute
 * figures move with the machine and the hour.
 */
import { writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { SUITES, shown } from './suites.js';
import { type Figures, medians } from './table.js';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '256' },
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
    contenders: { type: 'string' },
    workloads: { type: 'string' },
    json: { type: 'string', default: 'bench-results.json' },
  },
});
const expression = (text: string | undefined) => (text === undefined ? undefined : new RegExp(text));
const choice = { contenders: expression(values.contenders), workloads: expression(values.workloads) };
const size = Number(values.size) * 2 ** 20;
const results: Record<string, { readonly medians: Figures[]; readonly runs: Figures[][] }> = {};
console.log(
  `Node ${process.version}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model}, ${values.size} MiB, median of ${values.runs}\n`,
);
for (const [name, suite] of Object.entries(SUITES)) {
  if (values.only !== undefined && values.only !== name) continue;
  const runs: Figures[][] = [];
  for (let i = 0; i < Number(values.runs); i++) runs.push(await suite(size, i, choice));
  results[name] = { medians: medians(runs), runs };
  console.log(`${shown(name, results[name].medians)}\n`);
}
await writeFile(values.json, `${JSON.stringify({ node: process.version, size, results }, undefined, 2)}\n`);
