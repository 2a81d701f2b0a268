import { describe } from 'vitest';

/** Describes tests that need something from outside; says on the terminal why they are skipped when it is missing. */
export function describeUnless(missing: string | undefined, title: string, tests: () => void): void {
  // The default reporter shows neither titles nor reasons of what it skips.
  if (missing !== undefined) console.warn(`skipped: ${title}: ${missing}`);
  describe.skipIf(missing !== undefined)(
    missing === undefined ? title : `${title} (skipped: ${missing})`,
    tests,
  );
}
