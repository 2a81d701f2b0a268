/** A progress bar on standard error, which is a terminal. */
import { SingleBar } from 'cli-progress';
import type { ByteLength } from '../index.js';
import { formatSize } from './size.js';

/** Work that is over sooner shows no bar, milliseconds. */
const PATIENCE_MS = 300;

export class ProgressBar {
  readonly #title: string;
  readonly #since = performance.now();
  #bar: SingleBar | undefined;

  /** @param title what is done, such as `Exporting` */
  constructor(title: string) {
    this.#title = title;
  }

  /** Says how far the work is; may be called as often as one likes. */
  readonly update = (done: ByteLength, total: ByteLength): void => {
    const seconds = (performance.now() - this.#since) / 1000;
    if (this.#bar === undefined && seconds * 1000 < PATIENCE_MS) return;
    const shown = {
      at: formatSize(done),
      whole: formatSize(total),
      rate: formatSize(Math.round(done / seconds)),
    };
    if (this.#bar === undefined) {
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
