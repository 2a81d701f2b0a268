/** A progress bar on standard error, if that is a terminal. */
import type { ByteLength } from '../index.js';
import type { Session } from './session.js';

/** Runs `action` with a bar that goes away when it ends. */
export async function withProgress<T>(
  { notes, json }: Session,
  title: string,
  action: (update: (done: ByteLength, total: ByteLength) => void) => Promise<T>,
): Promise<T> {
  if (!notes.isTerminal || json) return action(() => undefined);
  const { ProgressBar } = await import('./progress-bar.js');
  const bar = new ProgressBar(title);
  try {
    return await action(bar.update);
  } finally {
    bar.stop();
  }
}
