/**
 * Runs the conformance cases against every server that is installed, and prints the matrix as markdown.
 *
 *     npx tsx test/interop/nbd-conformance/matrix.ts > docs/nbd-conformance.md
 *     npx tsx test/interop/nbd-conformance/matrix.ts --server nbdkit --match BLOCK_STATUS   what differs, as text
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Case } from './case.ts';
import { CHAPTERS } from './cases/index.ts';
import { page, type ServerResults } from './page.ts';
import { detailOf, runCase } from './run-cases.ts';
import { SERVERS } from './servers/index.ts';

async function results(server: string, cases: readonly Case[]): Promise<ServerResults> {
  const start = SERVERS[server];
  if (start === undefined)
    throw new Error(`no server ${server}; there are ${Object.keys(SERVERS).join(', ')}`);
  const outcomes: ServerResults['outcomes'] = new Map();
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-conformance-'));
  let target = await start(await mkdtemp(join(folder, 'server-')));
  try {
    for (const one of cases) {
      const outcome = await runCase(one, target);
      outcomes.set(one, outcome);
      if (outcome.kind !== 'broke') continue;
      await target.stop();
      target = await start(await mkdtemp(join(folder, 'server-')));
    }
    return { name: target.name, version: target.version, outcomes };
  } finally {
    await target.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

function printDifferences(found: ServerResults): void {
  for (const [one, outcome] of found.outcomes)
    if (outcome.kind !== 'as-written')
      console.log(
        `${found.name} ${outcome.kind}${outcome.kind === 'deviates' ? ` (${outcome.level})` : ''}: ${one.name}: ${detailOf(outcome)}`,
      );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { server: { type: 'string', multiple: true }, match: { type: 'string', default: '' } },
  });
  const wanted = CHAPTERS.flatMap(({ cases }) => cases).filter(({ name }) => name.includes(values.match));
  const all: ServerResults[] = [];
  for (const server of values.server ?? Object.keys(SERVERS)) {
    const started = performance.now();
    const found = await results(server, wanted);
    all.push(found);
    console.error(`${server}: ${wanted.length} cases in ${Math.round(performance.now() - started)} ms`);
    if (values.server !== undefined) printDifferences(found);
  }
  if (values.server === undefined) process.stdout.write(page(all));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
