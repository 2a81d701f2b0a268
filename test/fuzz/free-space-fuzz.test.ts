/**
 * Real file systems with bytes changed where it matters: the readers of free space answer, within bounds of time and memory, and
 * where checksums cover everything they never call unused what is in use.
 */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { autoFreeSpace } from '../../src/filesystem/auto.ts';
import { extFreeSpace } from '../../src/filesystem/ext-free-space.ts';
import type { FreeSpaceProvider } from '../../src/filesystem/free-space.ts';
import { ntfsFreeSpace } from '../../src/filesystem/ntfs-free-space.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { requireTool, runWell } from '../interop/support/writer-tools.ts';

const MEBIBYTE = 1024 * 1024;
const TRIALS = Number(process.env.VOLSNAP_FUZZ_TRIALS ?? 600);
const SEED = process.env.VOLSNAP_SEED ?? 'free space';

interface Base {
  readonly name: string;
  readonly provider: FreeSpaceProvider;
  readonly command: readonly string[];
  /** Are all structures that count covered by checksums? */
  readonly sealed: boolean;
}

const ext = (name: string, features: string, sealed: boolean, ...more: string[]): Base => ({
  name,
  provider: extFreeSpace(),
  command: ['mkfs.ext4', '-q', '-F', '-b', '1024', '-O', features, ...more],
  sealed,
});

const BASES: readonly Base[] = [
  ext('ext4', 'metadata_csum,64bit', true),
  ext('ext4 without checksums', '^metadata_csum,^uninit_bg,^64bit', false),
  ext('ext4 with meta groups', 'meta_bg,^resize_inode,^metadata_csum,uninit_bg', false),
  ext('ext4 with clusters', 'bigalloc,^metadata_csum,uninit_bg', false, '-C', '8192'),
  {
    name: 'NTFS',
    provider: ntfsFreeSpace({ frozen: true }),
    command: ['mkntfs', '-F', '-q', '-Q', '-s', '512'],
    sealed: false,
  },
];

test.skipIf(!requireTool('mkfs.ext4', 'mkntfs')).each(BASES)(
  '$name: every answer is one',
  { timeout: 3_600_000 },
  async ({ name, provider, command, sealed }) => {
    const bytes = await imageBytes(command);
    const places = await structuresOf(bytes, provider);
    const whole = await unusedOf(bytes, provider);
    expect(whole).toBeDefined();
    const random = new SeededRandom(`${SEED} ${name}`);
    let unsure = 0;
    for (let trial = 0; trial < TRIALS; trial++) {
      const undo = mutate(bytes, places, random);
      const size = random.chance(0.1) ? random.below(bytes.byteLength + 1) : bytes.byteLength;
      const found = await unusedOf(bytes.subarray(0, size), random.chance(0.1) ? autoFreeSpace() : provider);
      if (found === undefined) unsure++;
      else if (sealed)
        for (const [at, byte] of found.entries())
          expect(byte & ~(whole?.[at] ?? 0), `trial ${trial} of ${random.seed}, block ${at * 8}`).toBe(0);
      undo();
    }
    expect(unsure).toBeGreaterThan(0);
    expect(await unusedOf(bytes, provider)).toEqual(whole);
  },
);

async function imageBytes(command: readonly string[]): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-fuzz-'));
  try {
    const path = join(folder, 'image');
    await writeFile(path, '');
    await truncate(path, 20 * MEBIBYTE);
    const [program = '', ...args] = command;
    await runWell(program, ...args, path);
    return new Uint8Array(await readFile(path));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Reads that stay within the volume, and do not become many more than its size explains. */
function sourceOf(bytes: Uint8Array, onRead?: (offset: number, length: number) => void) {
  let total = 0;
  return {
    async read(offset: number, target: Uint8Array) {
      onRead?.(offset, target.byteLength);
      total += target.byteLength;
      expect(Number.isSafeInteger(offset) && offset >= 0).toBe(true);
      expect(offset + target.byteLength).toBeLessThanOrEqual(bytes.byteLength);
      expect(total).toBeLessThan(4 * bytes.byteLength + MEBIBYTE);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
  };
}

async function unusedOf(bytes: Uint8Array, provider: FreeSpaceProvider): Promise<Uint8Array | undefined> {
  const answer = await provider.unusedBlocks(sourceOf(bytes), bytes.byteLength, new AbortController().signal);
  if ('unsure' in answer) {
    expect(answer.unsure).not.toBe('');
    return undefined;
  }
  expect(answer.unused.byteLength).toBe(Math.ceil(bytes.byteLength / 16_384 / 8));
  return answer.unused;
}

/** What the reader looks at: of what is long only the beginning, mostly. */
async function structuresOf(bytes: Uint8Array, provider: FreeSpaceProvider): Promise<number[]> {
  const places: number[] = [];
  const note = (offset: number, length: number) => {
    for (let at = 0; at < Math.min(length, 1024); at++) places.push(offset + at);
  };
  await provider.unusedBlocks(sourceOf(bytes, note), bytes.byteLength, new AbortController().signal);
  return places;
}

/** Changes some bytes; returns what puts them back. */
function mutate(bytes: Uint8Array, places: readonly number[], random: SeededRandom): () => void {
  const before: (readonly [number, number])[] = [];
  const put = (at: number, value: number) => {
    if (at >= bytes.byteLength) return;
    before.push([at, bytes[at] ?? 0]);
    bytes[at] = value;
  };
  const count = random.pick([1, 1, 1, 2, 4, 16]);
  for (let i = 0; i < count; i++) {
    const at = random.pick(places);
    const kind = random.below(4);
    if (kind === 0) put(at, (bytes[at] ?? 0) ^ (1 << random.below(8)));
    else if (kind === 1) put(at, random.below(256));
    else {
      const word = at - (at % 4);
      const value = random.pick([0, 0xff, 0x7f, 0x80, 1]);
      for (let byte = 0; byte < 4; byte++) put(word + byte, kind === 2 ? value : byte === 3 ? value : 0xff);
    }
  }
  return () => {
    for (const [at, value] of before.reverse()) bytes[at] = value;
  };
}
