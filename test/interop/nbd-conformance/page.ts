/** docs/nbd-conformance.md, made from what was found. */
import type { Case } from './case.ts';
import { CHAPTERS } from './cases/index.ts';
import { detailOf, type Outcome } from './run-cases.ts';

export interface ServerResults {
  readonly name: string;
  readonly version: string;
  readonly outcomes: Map<Case, Outcome>;
}

/** What a cell shows. */
function mark(outcome: Outcome | undefined): string {
  if (outcome === undefined || outcome.kind === 'absent') return '–';
  if (outcome.kind === 'as-written') return 'yes';
  if (outcome.kind === 'broke') return '**broke**';
  return outcome.level === 'must' ? '**no**' : 'differs';
}

const escaped = (text: string): string =>
  text.replaceAll('|', '\\|').replaceAll('\n', ' ').replaceAll('<', '&lt;');

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`;

function summary(servers: readonly ServerResults[]): string {
  const marks = ['yes', '–', 'differs', '**no**', '**broke**'];
  const count = ({ outcomes }: ServerResults, wanted: string) =>
    [...outcomes.values()].filter((outcome) => mark(outcome) === wanted).length;
  return (
    row(['', ...servers.map(({ name, version }) => `${name} ${version}`)]) +
    row(['---', ...servers.map(() => '---')]) +
    marks.map((wanted) => row([wanted, ...servers.map((server) => String(count(server, wanted)))])).join('')
  );
}

function deviations({ name, outcomes }: ServerResults): string {
  const lines = [...outcomes]
    .filter(([, { kind }]) => kind === 'deviates' || kind === 'broke')
    .map(
      ([one, outcome]) =>
        `- ${mark(outcome)} (${one.section}): ${escaped(one.name)}. Found: ${escaped(detailOf(outcome).split('\n')[0] ?? '')}.\n`,
    );
  return `### ${name}\n\n${lines.length === 0 ? 'Nothing.\n' : lines.join('')}\n`;
}

export function page(servers: readonly ServerResults[]): string {
  const tables = CHAPTERS.map(({ title, cases }) => {
    const head =
      row(['the server …', 'section', 'level', ...servers.map(({ name }) => name)]) +
      row(['---', '---', '---', ...servers.map(() => '---')]);
    const rows = cases.map((one) =>
      row([
        escaped(one.name),
        one.section,
        one.level,
        ...servers.map(({ outcomes }) => mark(outcomes.get(one))),
      ]),
    );
    return `## ${title}\n\n${head}${rows.join('')}\n`;
  });
  return `# NBD conformance

Raw exchanges against servers of the NBD protocol. Every case stands for a sentence of the
[protocol document](https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md); sections that begin with \`extension\`
are those of its branch \`extension-ext-header\`. The client is the suite's own (\`test/interop/nbd-conformance\`), so that it shares no
mistake with volsnap's code. Everything each message must be (magic numbers, lengths, cookies, bounds of chunks and extents) is checked in every case.

This page is printed by \`npx tsx test/interop/nbd-conformance/matrix.ts > docs/nbd-conformance.md\`; what a single server does otherwise, by
\`--server NAME\`. The tests run all cases against volsnap.

**yes**: as written. **–**: not offered, and need not be. **differs**: a *should* that the server does not follow, or a *may* that clients
of today expect. **no**: against a *must*. **broke**: afterwards the server did not serve a new connection, or the case could not go on.
"May" cases and those of the last chapter are not demanded by the document.

${summary(servers)}
${tables.join('')}## What differs

${servers.map(deviations).join('')}`;
}
