/** Bytes of a volume or a snapshot on standard output. */
import type { ByteLength, ByteOffset, ByteSource } from '../index.js';
import { chunksOf } from './chunks.js';
import { UsageError } from './failure.js';
import { withProgress } from './progress.js';
import type { Session } from './session.js';

/** @throws UsageError if standard output is a terminal */
export function refuseTerminal({ output }: Session): void {
  if (output.isTerminal) {
    throw new UsageError(
      'bytes of a volume would upset the terminal; pipe them (| xxd) or redirect them (> FILE)',
    );
  }
}

/**
 * Writes a range of `source`, which lies within it; ends early if nobody reads any more.
 * @param title what is done, such as `Reading`
 */
export async function streamRange(
  session: Session,
  title: string,
  source: ByteSource,
  { offset, length }: { readonly offset: ByteOffset; readonly length: ByteLength },
): Promise<void> {
  const { output, signal } = session;
  await withProgress(session, title, async (update) => {
    for await (const chunk of chunksOf(source, { offset, length, signal })) {
      await output.write(chunk.data);
      if (output.closed) break;
      update(chunk.offset + chunk.data.byteLength - offset, length);
    }
  });
}
