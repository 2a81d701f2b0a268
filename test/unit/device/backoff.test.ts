/** Trials of a way that may be slow: how often one is made, and what of several at a time. */
import { expect, test } from 'vitest';
import { Backoff } from '../../../src/device/backoff.js';

/** Calls that go the other way before the next trial. */
function restOf(backoff: Backoff): number {
  for (let calls = 0; ; calls++) if (backoff.allows()) return calls;
}

test('one slow call is no reason, two in a row are, and each further one doubles the rest', () => {
  const backoff = new Backoff();
  backoff.report(true);
  expect(restOf(backoff)).toBe(0);
  backoff.report(true);
  expect(restOf(backoff)).toBe(16);
  backoff.report(true);
  expect(restOf(backoff)).toBe(32);
});

test('a dozen calls under way that turn out slow together are one reason, not eleven', () => {
  const backoff = new Backoff();
  for (let i = 0; i < 12; i++) backoff.report(true);
  expect(restOf(backoff)).toBe(16);
});

test('a fast call from before a rest does not end it', () => {
  const backoff = new Backoff();
  backoff.report(true);
  backoff.report(true);
  backoff.report(false);
  expect(restOf(backoff)).toBe(16);
  backoff.report(true);
  expect(restOf(backoff)).toBe(32);
});

test('after a fast trial it is as if nothing had been slow', () => {
  const backoff = new Backoff();
  for (let i = 0; i < 2; i++) backoff.report(true);
  restOf(backoff);
  backoff.report(false);
  backoff.report(true);
  expect(restOf(backoff)).toBe(0);
});
