/** By how much diff areas grow at a time: more when writes had to wait for it, less again when they have not for a while. */
import { checkWhole } from '../arguments.js';
import { BLOCK_SIZE, type ByteLength, roundUp } from '../units.js';

export interface Growth {
  /** First size of a diff area, and step of growth at the beginning; bytes. */
  readonly initial: ByteLength;
  /** Largest step, in bytes. */
  readonly maximum: ByteLength;
}

const MEBIBYTE = 1024 * 1024;
export const DEFAULT_GROWTH: Growth = { initial: 50 * MEBIBYTE, maximum: 1000 * MEBIBYTE };

/** Growths in a row that nobody waited for, after which the step is halved. */
const QUIET_GROWTHS = 4;

export class GrowthStep {
  readonly initial: ByteLength;
  readonly maximum: ByteLength;
  #bytes: ByteLength;
  #quietGrowths = 0;

  /** @throws InvalidArgumentError */
  constructor({ initial, maximum }: Growth) {
    checkWhole('growth.initial', initial);
    checkWhole('growth.maximum', maximum);
    this.initial = Math.max(BLOCK_SIZE, roundUp(initial, BLOCK_SIZE));
    this.maximum = Math.max(this.initial, roundUp(maximum, BLOCK_SIZE));
    this.#bytes = this.initial;
  }

  get bytes(): ByteLength {
    return this.#bytes;
  }

  /** A write had to wait for a growth: the next ones are longer. */
  waited(): void {
    this.#bytes = Math.min(this.maximum, this.#bytes * 2);
    this.#quietGrowths = 0;
  }

  grewQuietly(): void {
    if (++this.#quietGrowths < QUIET_GROWTHS) return;
    this.#quietGrowths = 0;
    this.#bytes = Math.max(this.initial, roundUp(this.#bytes / 2, BLOCK_SIZE));
  }
}
