/** A few hundred malformed stores; the long run is `npx tsx test/fuzz/store-fuzz.ts --count 100000`. */
import { expect, test } from 'vitest';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Fuzzer, fuzz, MEMORY_LIMIT, TIME_LIMIT_MS } from './store-fuzz.ts';
import { tryImage } from './trial.ts';

const SEED = process.env.VOLSNAP_SEED ?? 'vitest';
const COUNT = Number(process.env.VOLSNAP_FUZZ_IMAGES ?? 400);

test('the stores that the fuzzer starts from are sound, and found to be', async () => {
  const fuzzer = await Fuzzer.create(SEED);
  for (const base of fuzzer.bases) {
    const unchanged = { description: 'nothing', structures: [], sealed: false, image: base.image };
    const outcome = await tryImage(base, unchanged, new SeededRandom(SEED));
    expect(outcome, base.name).toMatchObject({ verdict: 'right', detail: '' });
    expect(
      outcome.codes.filter((code) => code !== 'opened' && code !== 'NO_SPACE'),
      base.name,
    ).toEqual([]);
  }
});

test('the same image comes from the same seed', async () => {
  const [a, b] = [await Fuzzer.create(SEED), await Fuzzer.create(SEED)];
  for (const index of [0, 1, 17, 399]) {
    const [left, right] = [a.make(index).mutation, b.make(index).mutation];
    expect(left.description).toBe(right.description);
    for (const [name, bytes] of left.image)
      expect(Buffer.compare(bytes, right.image.get(name) ?? new Uint8Array(0)), name).toBe(0);
  }
});

test(`${COUNT} malformed stores end in a clear error or a right read, in bounded time and memory`, {
  timeout: 300_000,
}, async () => {
  const report = await fuzz({ seed: SEED, count: COUNT, workers: 2 });
  const findings = report.findings
    .filter(({ kind }) => kind !== 'unclean')
    .map(
      ({ kind, index, mutation, detail }) =>
        `${kind}: npx tsx test/fuzz/store-fuzz.ts --seed ${SEED} --only ${index} (${mutation}): ${detail.slice(0, 300)}`,
    );
  expect(findings).toEqual([]);
  expect(report.count).toBe(COUNT);
  expect(report.slowestMs).toBeLessThan(TIME_LIMIT_MS);
  expect(report.mostBytes).toBeLessThan(MEMORY_LIMIT);
  // It gets to where it is meant to get: past the opening as well as into every check.
  for (const code of ['opened', 'FORMAT', 'INTEGRITY']) expect(report.codes[code], code).toBeGreaterThan(0);
});
