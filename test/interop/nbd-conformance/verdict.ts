/** What a case can find out about a server. */

/**
 * How binding the document is. `may`: the document leaves it open, but clients of today expect it, or a hostile
 * peer must not profit from it.
 */
export type Level = 'must' | 'should' | 'may';

/** The server does something else than the document says. Without a level of its own, that of the case counts. */
export class Deviation extends Error {
  override readonly name = 'Deviation';
  constructor(
    message: string,
    readonly level?: Level,
  ) {
    super(message);
  }
}

/** The server does not offer what this case is about, and need not. */
export class Absent extends Error {
  override readonly name = 'Absent';
}

/** For the sentence that the case stands for. */
export function expectThat(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Deviation(otherwise);
}

/** For what every message must be like, whatever the case is about. */
export function must(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Deviation(otherwise, 'must');
}

export function offered(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Absent(`${what} is not offered`);
}
