/**
 * An ordered set of small numbers that keeps itself balanced: a treap in typed arrays, 8 bytes an element.
 *
 * What the numbers stand for, and so their order, is the caller's: a comparison. Priorities are a hash of the number, so the same
 * elements always make the same tree. Element 0 means none.
 */
export class Treap {
  readonly #compare: (a: number, b: number) => number;
  #left: Uint32Array = new Uint32Array(0);
  #right: Uint32Array = new Uint32Array(0);
  #root = 0;

  /** @param compare negative: `a` comes before `b`; 0 for no two elements that are in together */
  constructor(compare: (a: number, b: number) => number) {
    this.#compare = compare;
  }

  /** Makes room for elements below `capacity`. */
  grow(capacity: number): void {
    this.#left = grown(this.#left, capacity);
    this.#right = grown(this.#right, capacity);
  }

  insert(element: number): void {
    this.#left[element] = 0;
    this.#right[element] = 0;
    this.#root = this.#insert(this.#root, element);
  }

  /** `element` must be in, and must compare as it did when it was inserted. */
  remove(element: number): void {
    this.#root = this.#remove(this.#root, element);
  }

  /** The first element of which `test` is true, where it is false of all before and true of all after it; 0: none. */
  first(test: (element: number) => boolean): number {
    let found = 0;
    for (let at = this.#root; at !== 0; ) {
      if (test(at)) {
        found = at;
        at = this.#left[at] ?? 0;
      } else at = this.#right[at] ?? 0;
    }
    return found;
  }

  /** The last element of which `test` is true, where it is true of all before and false of all after it; 0: none. */
  last(test: (element: number) => boolean): number {
    let found = 0;
    for (let at = this.#root; at !== 0; ) {
      if (test(at)) {
        found = at;
        at = this.#right[at] ?? 0;
      } else at = this.#left[at] ?? 0;
    }
    return found;
  }

  #insert(root: number, element: number): number {
    if (root === 0) return element;
    if (priority(element) > priority(root)) {
      const [before, after] = this.#split(root, element);
      this.#left[element] = before;
      this.#right[element] = after;
      return element;
    }
    if (this.#compare(element, root) < 0) this.#left[root] = this.#insert(this.#left[root] ?? 0, element);
    else this.#right[root] = this.#insert(this.#right[root] ?? 0, element);
    return root;
  }

  /** What comes before `element`, and what comes after it, as two trees. */
  #split(root: number, element: number): readonly [number, number] {
    if (root === 0) return NOTHING;
    if (this.#compare(root, element) < 0) {
      const [before, after] = this.#split(this.#right[root] ?? 0, element);
      this.#right[root] = before;
      return [root, after];
    }
    const [before, after] = this.#split(this.#left[root] ?? 0, element);
    this.#left[root] = after;
    return [before, root];
  }

  #remove(root: number, element: number): number {
    if (root === 0) return 0;
    if (root === element) return this.#join(this.#left[root] ?? 0, this.#right[root] ?? 0);
    if (this.#compare(element, root) < 0) this.#left[root] = this.#remove(this.#left[root] ?? 0, element);
    else this.#right[root] = this.#remove(this.#right[root] ?? 0, element);
    return root;
  }

  /** Two trees of which one comes before the other, as one. */
  #join(before: number, after: number): number {
    if (before === 0) return after;
    if (after === 0) return before;
    if (priority(before) > priority(after)) {
      this.#right[before] = this.#join(this.#right[before] ?? 0, after);
      return before;
    }
    this.#left[after] = this.#join(before, this.#left[after] ?? 0);
    return after;
  }
}

const NOTHING = [0, 0] as const;

/** A hash that keeps neighbours apart (the final mix of MurmurHash3). */
function priority(element: number): number {
  let hash = Math.imul(element ^ (element >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** A longer copy. */
export function grown(array: Uint32Array, capacity: number): Uint32Array {
  const longer = new Uint32Array(capacity);
  longer.set(array);
  return longer;
}
