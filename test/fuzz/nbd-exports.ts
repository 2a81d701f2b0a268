/** Exports in memory for the NBD fuzzer: what can be predicted, what is slow, what fails. */
import { DeviceError } from '../../src/errors.ts';
import type { ExportCatalog, NbdExport, StatusContext, StatusContexts } from '../../src/nbd/server/export.ts';

/** Message of every failure that an export makes on purpose. */
export const ON_PURPOSE = 'the fuzzer wanted this failure';

export interface ExportPlan {
  readonly name: string;
  readonly size: number;
  readonly writable: boolean;
  /** Turns of the event loop until an operation ends: up to this, in no order. */
  readonly turns: number;
  /** Operations that touch this part fail. */
  readonly broken?: { readonly start: number; readonly end: number };
}

export const STRIPE = 512;
const CONTEXTS = ['base:allocation', 'x-fuzz:stripes'] as const;

export const PLANS: readonly ExportPlan[] = [
  { name: 'still', size: 1 << 20, writable: false, turns: 0 },
  { name: 'disk', size: 3 << 18, writable: true, turns: 0 },
  { name: '', size: 1 << 17, writable: true, turns: 4 },
  { name: 'slow', size: 5 << 16, writable: true, turns: 9 },
  {
    name: 'faulty é',
    size: 1 << 16,
    writable: true,
    turns: 1,
    broken: { start: 1 << 15, end: (1 << 15) + 4096 },
  },
  { name: 'witness', size: 1 << 16, writable: true, turns: 0 },
];

/** What `still` holds. */
export function stillByte(offset: number): number {
  return (Math.imul(offset >>> 2, 0x9e3779b1) >>> (8 * (offset & 3))) & 0xff;
}

class Stripes implements StatusContext {
  readonly name: string;
  readonly #size: number;

  constructor(name: string, size: number) {
    this.name = name;
    this.#size = size;
  }

  *extents(offset: number, length: number): Generator<{ length: number; status: number }> {
    const end = Math.min(offset + length, this.#size);
    for (let at = offset; at < end; ) {
      const next = Math.min((Math.floor(at / STRIPE) + 1) * STRIPE, this.#size);
      yield { length: next - at, status: Math.floor(at / STRIPE) % 2 };
      at = next;
    }
  }
}

export class FuzzExport implements NbdExport {
  readonly name: string;
  readonly description: string;
  readonly size: number;
  readonly writable: boolean;
  readonly zeroesFast = true;
  readonly contexts: StatusContexts;
  /** Opened and not released. */
  users = 0;
  readonly #plan: ExportPlan;
  readonly #bytes: Buffer;
  #turn = 1;

  constructor(plan: ExportPlan) {
    this.#plan = plan;
    this.name = plan.name;
    this.description = `fuzzed: ${plan.name}`;
    this.size = plan.size;
    this.writable = plan.writable;
    this.#bytes = Buffer.alloc(plan.size);
    if (plan.name === 'still') for (let at = 0; at < plan.size; at++) this.#bytes[at] = stillByte(at);
    const contexts = CONTEXTS.map((name) => new Stripes(name, plan.size));
    this.contexts = {
      list: (query) =>
        CONTEXTS.filter(
          (name) => query === undefined || name === query || (query.endsWith(':') && name.startsWith(query)),
        ),
      select: (query) => contexts.filter(({ name }) => name === query),
    };
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    await this.#pass(offset, target.byteLength);
    target.set(this.#bytes.subarray(offset, offset + target.byteLength));
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    await this.#pass(offset, source.byteLength);
    this.#bytes.set(source, offset);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#pass(offset, length);
    this.#bytes.fill(0, offset, offset + length);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.writeZeroes(offset, length);
  }

  async flush(): Promise<void> {
    await this.#pass(0, 0);
  }

  release(): void {
    this.users--;
  }

  async #pass(offset: number, length: number): Promise<void> {
    if (offset < 0 || length < 0 || offset + length > this.size)
      throw new RangeError(`${length} bytes at ${offset} of ${this.size} reached the export`);
    const { turns, broken } = this.#plan;
    this.#turn = (this.#turn * 5 + 3) % 64;
    for (let turn = turns === 0 ? 0 : this.#turn % (turns + 1); turn > 0; turn--)
      await new Promise<void>((resolve) => setImmediate(resolve));
    if (broken !== undefined && offset < broken.end && offset + length > broken.start)
      throw new DeviceError(ON_PURPOSE);
  }
}

export class FuzzCatalog implements ExportCatalog {
  readonly exports = PLANS.map((plan) => new FuzzExport(plan));

  list(): readonly NbdExport[] {
    return this.exports;
  }

  async open(name: string): Promise<NbdExport | undefined> {
    const found = this.exports.find((one) => one.name === name);
    if (found !== undefined) found.users++;
    return found;
  }

  get users(): number {
    return this.exports.reduce((sum, { users }) => sum + users, 0);
  }
}
