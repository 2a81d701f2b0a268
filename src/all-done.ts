/**
 * Waits for all, also when one fails: the buffers, ranges and files that they work on are theirs until then.
 * @param work `undefined`: there is nothing to wait for
 * @throws what the first of them threw, in the order given
 */
export async function allDone(work: readonly (Promise<unknown> | undefined)[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) if (result.status === 'rejected') throw result.reason;
}
