/**
 * Answers to status requests, one after the other: each may be long work with a long answer.
 *
 * Shared state: the request before, and who waits for room; changed between awaits only.
 */
import { assert } from '../../errors.js';
import type { ByteLength } from '../../units.js';
import { encodeBlockStatus } from '../wire/block-status.js';
import { RequestFlag } from '../wire/constants.js';
import type { Request } from '../wire/request.js';
import type { Agreement } from './negotiation.js';
import type { Outgoing } from './outgoing.js';
import { statusQuery } from './requests.js';
import { collectExtents, EXTENTS_MAX } from './status.js';

export class StatusAnswers {
  readonly #agreement: Agreement;
  readonly #outgoing: Outgoing;
  readonly #looseMax: ByteLength;
  #before: Promise<void> = Promise.resolve();
  /** A request waits until more of the answers before it has left. */
  #onRoom: (() => void) | undefined;

  /** @param looseMax bytes of unread answers beyond which a request waits */
  constructor(agreement: Agreement, outgoing: Outgoing, looseMax: ByteLength) {
    this.#agreement = agreement;
    this.#outgoing = outgoing;
    this.#looseMax = looseMax;
  }

  /** Resolves when it is answered. @throws RequestError, or what the context throws */
  answer(request: Request, payload: Buffer | undefined): Promise<void> {
    const answered = this.#before.then(() => this.#answer(request, payload));
    this.#before = answered.catch(() => undefined);
    return answered;
  }

  /** Answers have left, or never will. */
  sent(): void {
    if (this.#outgoing.looseBytes > this.#looseMax) return;
    this.#onRoom?.();
    this.#onRoom = undefined;
  }

  async #answer(request: Request, payload: Buffer | undefined): Promise<void> {
    if (this.#outgoing.looseBytes > this.#looseMax)
      await new Promise<void>((resolve) => {
        this.#onRoom = resolve;
      });
    if (this.#outgoing.isOver) return;
    const { export: exported, contexts, style } = this.#agreement;
    const { offset, flags } = request;
    const { length, ids } = statusQuery(request, payload, contexts, exported.size);
    const reqOne = (flags & RequestFlag.reqOne) !== 0;
    const extended = style === 'extended';
    const most = Math.max(1, Math.floor(EXTENTS_MAX / ids.length));
    const answers: Buffer[] = [];
    for (const [i, id] of ids.entries()) {
      const context = contexts[id - 1];
      assert(context !== undefined, () => `context ${id} of ${contexts.length}`);
      const range = { offset, length, size: exported.size };
      const extents = await collectExtents(context, range, { reqOne, extended, most });
      answers.push(encodeBlockStatus(request, extended, { id, extents, done: i === ids.length - 1 }));
    }
    // Together: an error halfway would otherwise come after a part of the answer.
    for (const answer of answers) this.#outgoing.send(answer);
  }
}
