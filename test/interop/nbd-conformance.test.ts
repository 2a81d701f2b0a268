/**
 * The NBD protocol, exchange by exchange, against our server. The same cases against other servers:
 * docs/nbd-conformance.md.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Case } from './nbd-conformance/case.ts';
import { CHAPTERS } from './nbd-conformance/cases/index.ts';
import { type Lie, runThrough, saying } from './nbd-conformance/middleman.ts';
import { runCase } from './nbd-conformance/run-cases.ts';
import { startNbdkit, startQemuNbd } from './nbd-conformance/servers/others.ts';
import { type OurTarget, startOurs } from './nbd-conformance/servers/ours.ts';
import { requireTool } from './support/writer-tools.ts';

const CASES: readonly Case[] = CHAPTERS.flatMap(({ cases }) => cases);

/** Where we do not do what a `should` or a `may` says, and why. None of a `must` may be here. */
const DIFFERENT: Readonly<Record<string, string>> = {
  'sends a hole as a hole': 'zeros are sent as data',
};

let folder = '';
let target: OurTarget;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-conformance-'));
  target = await startOurs(folder);
});
afterAll(async () => {
  await target.stop();
  await rm(folder, { recursive: true, force: true });
});

for (const { title, cases } of CHAPTERS)
  describe(title, () => {
    for (const one of cases)
      test(`the server ${one.name} (${one.section})`, async () => {
        const outcome = await runCase(one, target);
        const different = DIFFERENT[one.name];
        if (different === undefined) expect(outcome).toEqual({ kind: 'as-written' });
        else {
          expect(one.level).not.toBe('must');
          expect(outcome).toEqual({ kind: 'deviates', level: one.level, detail: different });
        }
      });
  });

test('the server has met no error of its own, and keeps nothing of clients that are gone', async () => {
  expect(target.errors).toEqual([]);
  await expect.poll(() => target.server.figures.connections, { timeout: 10_000 }).toBe(0);
  expect(target.server.figures.inFlight).toBe(0);
  expect(target.server.memoryBytes).toBe(0);
});

test('every case has a name of its own', () => {
  expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
});

test('the page with the matrix shows every case', async () => {
  const page = await readFile(new URL('../../docs/nbd-conformance.md', import.meta.url), 'utf8');
  const missing = CASES.filter(({ name }) => !page.includes(`| ${name.replaceAll('<', '&lt;')} |`));
  expect(missing.map(({ name }) => name)).toEqual([]);
});

/** Each makes the server wrong in one way, which the case beside it must see. */
const LIES: readonly (readonly [what: string, sees: string, lie: Lie])[] = [
  [
    'an unknown handshake flag',
    'sets no handshake flag that is not defined',
    saying('49484156454f5054 0003', '49484156454f5054 0007'),
  ],
  ['another first magic number', 'speaks first: both magic numbers', saying('4e42444d', '4e42444e')],
  [
    'ACK to an unknown option',
    'answers unknown option 30583 with 0 bytes',
    saying('00007777 80000001', '00007777 80000003'),
  ],
  [
    'a reply to another option',
    'answers unknown option 30583 with 0 bytes',
    saying('00007777 80000001', '00007778 80000001'),
  ],
  ['an error to ABORT', 'answers ABORT by ACK', saying('00000002 00000001', '00000002 80000002')],
  [
    'a name that was not asked for in LIST',
    'lists its exports',
    saying('6469736b2f6c697665', '6469736b2f6c697666'),
  ],
  [
    'INFO without INFO_EXPORT',
    'INFO with information requests [] succeeds',
    saying('00000003 0000000c 0000', '00000003 0000000c 0009'),
  ],
  [
    'reserved bytes that are not zeroes',
    'answers EXPORT_NAME with size, flags and 124 zeroes',
    (bytes) => {
      if (bytes.length >= 134) bytes[bytes.length - 1] = 1;
    },
  ],
  [
    'a minimum block size of 3',
    'advertises a minimum block size',
    saying('00000001 00004000 02000000', '00000003 00004000 02000000'),
  ],
  [
    'DF without structured replies',
    'does not offer DF',
    (bytes) => {
      const size = bytes.indexOf(Buffer.from('0000000001000000', 'hex'));
      if (size !== -1) bytes[size + 9] = (bytes[size + 9] ?? 0) | 0x80;
    },
  ],
  ['another magic of simple replies', 'READ returns a sector, simple', saying('67446698', '67446699')],
  ['another magic of chunks', 'READ returns a sector, structured', saying('668e33ef', '668e33ee')],
  ['compact replies to extended requests', 'READ returns a sector, extended', saying('6e8a278c', '668e33ef')],
  ['another cookie', 'READ returns a sector, simple', saying('123456789abcdef0', '123456789abcdef1')],
  [
    'another offset in an extended reply',
    'READ returns a sector, extended',
    saying('123456789abcdef0 0000000000000200', '123456789abcdef0 0000000000000400'),
  ],
  ['an unknown chunk flag', 'READ returns a sector, structured', saying('668e33ef 0001', '668e33ef 0003')],
  [
    'data of another place',
    'READ returns a sector, structured',
    saying('00000208 0000000000000200', '00000208 0000000000000400'),
  ],
  [
    'one wrong byte',
    'READ returns a byte, simple',
    (bytes) => {
      const at = bytes.indexOf(Buffer.from('6744669800000000', 'hex'));
      if (at !== -1 && at + 17 <= bytes.length) bytes[at + 16] = (bytes[at + 16] ?? 0) ^ 1;
    },
  ],
  [
    'EINVAL for a write behind the end',
    'WRITE beyond the end fails with ENOSPC, simple',
    saying('67446698 0000001c', '67446698 00000016'),
  ],
  [
    'success for a write to a read-only export',
    'WRITE to a read-only export fails with EPERM, simple',
    saying('67446698 00000001', '67446698 00000000'),
  ],
  [
    'a context that was not selected',
    'BLOCK_STATUS of one byte, and of an odd range, is answered, structured',
    saying('00000001 00000001 00000000', '00000009 00000001 00000000'),
  ],
];

describe('a server that is wrong in one way is seen to be', () => {
  for (const [what, sees, lie] of LIES)
    test(what, async () => {
      const one = CASES.find(({ name }) => name.startsWith(sees));
      if (one === undefined) return expect.fail(`there is no case "${sees}"`);
      const honest = await runThrough(() => undefined, one, target, join(folder, 'honest.sock'));
      expect(honest).toEqual({ kind: 'as-written' });
      const outcome = await runThrough(lie, one, target, join(folder, 'lie.sock'));
      expect(outcome.kind, JSON.stringify(outcome)).not.toBe('as-written');
      expect(outcome.kind).not.toBe('absent');
    });
});

describe.skipIf(!requireTool('qemu-nbd', 'nbdkit'))('other servers are judged by the same cases', () => {
  test.each([
    ['qemu-nbd', startQemuNbd],
    ['nbdkit', startNbdkit],
  ] as const)('%s', async (name, start) => {
    const other = await start(await mkdtemp(join(folder, 'other-')));
    const counts = { 'as-written': 0, absent: 0, deviates: 0, broke: 0 };
    try {
      const chapters = CHAPTERS.filter(({ title }) => title === 'Reading' || title === 'INFO and GO');
      for (const one of chapters.flatMap(({ cases }) => cases)) {
        const outcome = await runCase(one, other);
        counts[outcome.kind]++;
        if (outcome.kind === 'broke') expect.fail(`${name}, ${one.name}: ${outcome.detail}`);
      }
    } finally {
      await other.stop();
    }
    // It says what they do otherwise, and what they lack; neither is a failure here.
    expect(counts['as-written']).toBeGreaterThan(70);
  });
});
