/** A few thousand broken conversations; the long run is `npx tsx test/fuzz/nbd-fuzz.ts --cases 100000`. */
import { expect, test } from 'vitest';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Deviation } from '../interop/nbd-conformance/verdict.ts';
import { checkOutput } from './nbd-check.ts';
import { SETTLE_MS } from './nbd-client.ts';
import { Conversation } from './nbd-conversation.ts';
import { fuzz, HEAP_GROWTH_LIMIT } from './nbd-fuzz.ts';
import { understand } from './nbd-model.ts';
import { type Plan, planOf } from './nbd-plan.ts';
import { Arena, FUZZ_LIMITS } from './nbd-trial.ts';

const SEED = process.env.VOLSNAP_SEED ?? 'vitest';
const CASES = Number(process.env.VOLSNAP_NBD_FUZZ_CASES ?? 3000);
const LIMITS = { optionBytes: 4096, skippedBytes: 1 << 20, payloadBytes: 1 << 25 };

const politely = (conversation: Conversation): Plan => ({
  bytes: Buffer.concat(conversation.messages.map(({ bytes }) => bytes)),
  description: '',
  seams: [],
  cuts: [],
  manner: 'polite',
  channel: 'plain',
  others: [],
});

test('the same case comes from the same seed', () => {
  for (const index of [0, 1, 17, 4711]) {
    const [one, other] = [planOf(SEED, index), planOf(SEED, index)];
    expect(one.description).toBe(other.description);
    expect(one.bytes.equals(other.bytes)).toBe(true);
    expect(one).toEqual(other);
  }
});

test('conversations without damage are answered as the model says, to the last request', async () => {
  const arena = await Arena.create();
  let answered = 0;
  for (let index = 0; index < 100; index++) {
    const plan = politely(new Conversation(new SeededRandom(`${SEED}/whole/${index}`)));
    const outcome = await arena.run(plan);
    expect(outcome.wrong, `conversation ${index}`).toBe('');
    answered += outcome.replies;
  }
  await arena.close();
  expect(answered).toBeGreaterThan(200);
});

test('answers that are wrong are seen to be', () => {
  const conversation = new Conversation(new SeededRandom('options and an export'));
  const sent = Buffer.concat(conversation.messages.map(({ bytes }) => bytes));
  const understood = understand(sent, LIMITS);
  const greeting = Buffer.from('4e42444d4147494349484156454f50540003', 'hex');
  expect(() => checkOutput(greeting.subarray(0, 10), understood, false)).not.toThrow();
  expect(() => checkOutput(greeting.subarray(0, 10), understood, true)).toThrow(Deviation);
  expect(() => checkOutput(Buffer.alloc(18), understood, false)).toThrow(Deviation);
  expect(() => checkOutput(Buffer.concat([greeting, Buffer.alloc(40, 1)]), understood, false)).toThrow(
    Deviation,
  );
});

test(`${CASES} broken conversations: no crash, hang or leak, and the second client is served right`, {
  timeout: 600_000,
}, async () => {
  const report = await fuzz({ seed: SEED, cases: CASES, workers: 1 });
  const findings = report.findings.map(
    ({ kind, index, description, detail }) =>
      `${kind}: npx tsx test/fuzz/nbd-fuzz.ts --seed ${SEED} --only ${index} (${description.slice(0, 200)}): ${detail.slice(0, 400)}`,
  );
  expect(findings).toEqual([]);
  expect(report.cases).toBe(CASES);
  expect(report.slowestMs).toBeLessThan(SETTLE_MS + FUZZ_LIMITS.handshakeMs);
  expect(report.heapGrowth).toBeLessThan(HEAP_GROWTH_LIMIT);
  // It gets to where it is meant to get: through the negotiation and into requests.
  expect(report.options).toBeGreaterThan(CASES / 2);
  expect(report.replies).toBeGreaterThan(CASES / 2);
});
