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
  /** Of one that waits. */
  go: (() => void) | undefined;
}

export class BlockLocks {
  /** In the order of arrival. All of this changes between awaits only. */
  readonly #claims: Claim[] = [];
  #waiting = 0;

  /** Runs `action` when it may touch the bytes from `start` to `end`. */
  async run<T>(start: number, end: number, alone: boolean, action: () => Promise<T>): Promise<T> {
    const claim: Claim = { start, end, alone, go: undefined };
    const isFree = !this.#claims.some((earlier) => conflict(earlier, claim));
    this.#claims.push(claim);
    if (!isFree) {
      this.#waiting += 1;
      await new Promise<void>((go) => {
        claim.go = go;
      });
    }
    try {
      return await action();
    } finally {
      this.#claims.splice(this.#claims.indexOf(claim), 1);
      if (this.#waiting > 0) this.#serve();
    }
  }

  #serve(): void {
    for (const [index, claim] of this.#claims.entries()) {
      const { go } = claim;
      if (go === undefined || this.#claims.slice(0, index).some((earlier) => conflict(earlier, claim)))
        continue;
      claim.go = undefined;
      this.#waiting -= 1;
      go();
    }
  }
}

const conflict = (a: Claim, b: Claim): boolean => (a.alone || b.alone) && a.start < b.end && b.start < a.end;
