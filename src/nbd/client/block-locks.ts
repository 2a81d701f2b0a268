/**
 * Keeps writes off a block that is being read, changed and written back, for exports with a minimum block size.
 *
 * Writes of whole blocks share a range; one that changes part of a block has it alone, or it would write back what another
 * has just replaced. First come, first served where ranges overlap.
 */
interface Claim {
  readonly start: number;
  readonly end: number;
  readonly alone: boolean;
  go: () => void;
  holds: boolean;
}

export class BlockLocks {
  /** In the order of arrival. Changed between awaits only. */
  readonly #claims: Claim[] = [];

  /** Runs `action` when it may touch the bytes from `start` to `end`. */
  async run<T>(start: number, end: number, alone: boolean, action: () => Promise<T>): Promise<T> {
    const claim: Claim = { start, end, alone, go: () => undefined, holds: false };
    const granted = new Promise<void>((go) => {
      claim.go = go;
    });
    this.#claims.push(claim);
    this.#serve();
    try {
      await granted;
      return await action();
    } finally {
      this.#claims.splice(this.#claims.indexOf(claim), 1);
      this.#serve();
    }
  }

  #serve(): void {
    for (const [index, claim] of this.#claims.entries()) {
      if (claim.holds || this.#claims.slice(0, index).some((earlier) => conflict(earlier, claim))) continue;
      claim.holds = true;
      claim.go();
    }
  }
}

const conflict = (a: Claim, b: Claim): boolean => (a.alone || b.alone) && a.start < b.end && b.start < a.end;
