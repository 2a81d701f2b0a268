/** A progress bar on standard error, if that is a terminal. */
import { SingleBar } from 'cli-progress';
import type { ByteLength } from '../index.js';
import type { Session } from './session.js';
import { formatSize } from './size.js';

/** Work that is over sooner shows no bar, milliseconds. */
const PATIENCE_MS = 300;

export class Progress {
  readonly #title: string;
  readonly #isShown: boolean;
  readonly #since = performance.now();
  #bar: SingleBar | undefined;

  /** @param title what is done, such as `Exporting` */
  constructor({ notes, json }: Session, title: string) {
    this.#title = title;
    this.#isShown = notes.isTerminal && !json;
  }

  /** Says how far the work is; may be called as often as one likes. */
  readonly update = (done: ByteLength, total: ByteLength): void => {
    if (!this.#isShown) return;
    const seconds = (performance.now() - this.#since) / 1000;
    const shown = {
      at: formatSize(done),
      whole: formatSize(total),
      rate: formatSize(Math.round(done / seconds)),
    };
    if (this.#bar === undefined) {
      if (seconds * 1000 < PATIENCE_MS) return;
      this.#bar = new SingleBar({
        stream: process.stderr,
        format: `${this.#title} {bar} {percentage}%  {at} of {whole}  {rate}/s  {eta_formatted} left`,
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 24,
        clearOnComplete: true,
        fps: 10,
      });
      this.#bar.start(total, done, shown);
    }
    this.#bar.update(done, shown);
  };

  /** Takes the bar away. */
  stop(): void {
    this.#bar?.stop();
  }
}

/** Runs `action` with a bar that goes away when it ends. */
export async function withProgress<T>(
  session: Session,
  title: string,
  action: (update: Progress['update']) => Promise<T>,
): Promise<T> {
  const progress = new Progress(session, title);
  try {
    return await action(progress.update);
  } finally {
    progress.stop();
  }
}
