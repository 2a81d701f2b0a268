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

/** The first line, without the folder that the sockets happened to lie in. */
const foundIn = (outcome: Outcome): string =>
  (detailOf(outcome).split('\n')[0] ?? '').replace(/\/\S*\/([\w-]+\.sock)/g, '$1');

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
        `- ${mark(outcome)} (${one.section}): ${escaped(one.name)}. Found: ${escaped(foundIn(outcome))}.\n`,
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
Where a server **broke** it was started again for the next case. Those of nbdkit 1.32.5 are two of its own assertions, which end the process:
\`backend.c:725\` when a client sets FAST_ZERO that was not offered, \`connections.c:402\` when a client vanishes with answers on their way (not every time). qemu reads
the magic number of a request as any other field and answers EINVAL, so nothing is dropped there; where it wants TLS it refuses ABORT before it; what is in flight at DISC it answers or not, by chance.
Extended headers are younger than the installed versions of all three.

${tables.join('')}## What differs

${servers.map(deviations).join('')}`;
}
