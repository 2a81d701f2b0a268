/** Vectored writes of copies. */

/** Neighbouring views of one buffer as one view: fewer vectors for the operating system. */
export function joined(views: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (const view of views) {
    const last = result.at(-1);
    if (
      last !== undefined &&
      last.buffer === view.buffer &&
      last.byteOffset + last.byteLength === view.byteOffset
    ) {
      result[result.length - 1] = new Uint8Array(
        last.buffer,
        last.byteOffset,
        last.byteLength + view.byteLength,
      );
    } else {
      result.push(view);
    }
  }
  return result;
}

/** Like `Promise.all`, but settles only when every promise has: the buffers are in use until then. */
export async function allSettled(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises))
    if (result.status === 'rejected') throw result.reason;
}
