/**
 * Cache images with bytes changed, most of them with their checksums made right again: opening, checking and dumping must say what is wrong, or work, and
 * never fail in another way.
 *
 * `npx tsx test/fuzz/cache-fuzz.ts [--mutations N] [--seed N]`
 */
import { crc32 } from 'node:zlib';
import { CachedDevice, CacheImage, MemoryDevice, VolsnapError } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';

const MEBIBYTE = 1024 * 1024;
/** More is no answer, milliseconds. */
const PATIENCE_MS = 5000;

export interface CacheFuzzFigures {
  mutations: number;
  /** Refused with a clear error. */
  refused: number;
  opened: number;
}

/** An image with two levels of nodes, closed cleanly. */
export async function baseImage(): Promise<Uint8Array> {
  const device = new MemoryDevice(0);
  await CacheImage.create(device, { size: 2 * MEBIBYTE, id: '11111111-2222-4333-8444-555555555555' });
  {
    await using image = await CacheImage.open(device);
    for (let at = 0; at < 250; at++)
      await image.write(at * 16_384, new Uint8Array(512 + 512 * (at % 2)).fill(at));
  }
  return device.bytes.slice();
}

/** @throws an error that is no clear one */
export async function fuzzCache(
  base: Uint8Array,
  seed: number,
  mutations: number,
): Promise<CacheFuzzFigures> {
  const figures = { mutations: 0, refused: 0, opened: 0 };
  const nodes = nodesOf(base);
  for (let number = 0; number < mutations; number++) {
    const random = new SeededRandom(`${seed}/${number}`);
    const bytes = mutate(base, nodes, random);
    const started = performance.now();
    try {
      await use(bytes);
      figures.opened++;
    } catch (error) {
      if (!(error instanceof VolsnapError) || error.message === '')
        throw new Error(`mutation ${number} of seed ${seed}: ${String(error)}`, { cause: error });
      figures.refused++;
    }
    if (performance.now() - started > PATIENCE_MS)
      throw new Error(`mutation ${number} of seed ${seed} took too long`);
    figures.mutations++;
  }
  return figures;
}

/** Bytes at which nodes begin. */
function nodesOf(bytes: Uint8Array): number[] {
  const nodes: number[] = [];
  for (let at = 0; at + 4096 <= bytes.byteLength; at += 512) {
    const kind = bytes[at] ?? 0;
    const sum = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(4092, true);
    if ((kind === 1 || kind === 2) && sum === crc32(bytes.subarray(at, at + 4092))) nodes.push(at);
  }
  return nodes;
}

function mutate(base: Uint8Array, nodes: readonly number[], random: SeededRandom): Uint8Array {
  const bytes = base.slice();
  for (let left = random.between(1, 4); left > 0; left--) {
    const [from, length] = random.pick([
      [0, 184] as const,
      [1024, 1024] as const,
      [random.pick(nodes), 4096] as const,
      [random.pick(nodes), 200] as const,
      [0, bytes.byteLength] as const,
    ]);
    const at = from + random.below(length);
    bytes[at] = random.pick([0, 1, 0xff, (bytes[at] ?? 0) ^ (1 << random.below(8)), random.below(256)]);
  }
  if (random.chance(0.8)) seal(bytes, nodes);
  return random.chance(0.05) ? bytes.slice(0, random.below(bytes.byteLength)) : bytes;
}

/** Makes checksums right, so that what is behind them is looked at. */
function seal(bytes: Uint8Array, nodes: readonly number[]): void {
  const view = new DataView(bytes.buffer);
  view.setUint32(180, crc32(bytes.subarray(184, 512), crc32(bytes.subarray(0, 180))), true);
  for (const at of nodes) view.setUint32(at + 4092, crc32(bytes.subarray(at, at + 4092)), true);
}

async function use(bytes: Uint8Array): Promise<void> {
  const device = new MemoryDevice(bytes, { name: 'mutated' });
  const problems = await CacheImage.check(device);
  for await (const _ of CacheImage.dump(device));
  const image = await CacheImage.open(device);
  if (problems.some(({ code }) => code === 'damaged')) throw new Error('what check calls damaged opens');
  await using cached = await CachedDevice.open(image, new MemoryDevice(4 * MEBIBYTE), { readAhead: 0 });
  const target = new Uint8Array(65_536);
  for (let at = 0; at < 4 * MEBIBYTE; at += 8 * target.byteLength) await cached.read(at, target);
  await cached.write(0, target);
}

if (process.argv[1]?.endsWith('cache-fuzz.ts')) {
  const argument = (name: string, otherwise: number): number => {
    const at = process.argv.indexOf(name);
    return at < 0 ? otherwise : Number(process.argv[at + 1]);
  };
  const base = await baseImage();
  const started = performance.now();
  const figures = await fuzzCache(base, argument('--seed', 1), argument('--mutations', 1000));
  console.log(JSON.stringify(figures), `${((performance.now() - started) / 1000).toFixed(1)} s`);
}
