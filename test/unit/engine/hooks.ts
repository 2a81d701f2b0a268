/**
 * Devices and folders that tell what is done to them, and let a test delay it or make it fail.
 *
 * `before` is asked ahead of each operation: it may throw (the operation fails and has no effect) or return a promise
 * (the operation waits for it). Everything that really happened is in `log`, with its begin and its end.
 */
import { type AllocationExtent, allocationOf } from '../../../src/device/allocation.ts';
import type { ResizableDevice } from '../../../src/device/block-device.ts';
import type { Folder } from '../../../src/device/folder.ts';

export interface Operation {
  /** Name of the device or folder. */
  readonly target: string;
  readonly kind:
    | 'read'
    | 'write'
    | 'discard'
    | 'allocation'
    | 'flush'
    | 'resize'
    | 'create'
    | 'remove'
    | 'sync';
  readonly offset: number;
  readonly length: number;
}

export interface LogEntry extends Operation {
  readonly phase: 'begin' | 'end';
}

export class Hooks {
  before: (operation: Operation) => undefined | Promise<void> = () => undefined;
  readonly log: LogEntry[] = [];
  /** Counts kills; what was opened before one never finishes another operation. */
  generation = 0;

  async run<T>(generation: number, operation: Operation, action: () => Promise<T>): Promise<T> {
    if (generation !== this.generation) return new Promise(() => undefined);
    const wait = this.before(operation);
    if (wait !== undefined) await wait;
    if (generation !== this.generation) return new Promise(() => undefined);
    this.log.push({ ...operation, phase: 'begin' });
    const result = await action();
    this.log.push({ ...operation, phase: 'end' });
    return result;
  }

  /** Finished operations of a kind, on targets whose name contains `target`. */
  count(kind: Operation['kind'], target = ''): number {
    return this.log.filter(
      (entry) => entry.phase === 'end' && entry.kind === kind && entry.target.includes(target),
    ).length;
  }
}

export class HookedDevice implements ResizableDevice {
  readonly #inner: ResizableDevice;
  readonly #hooks: Hooks;
  readonly #generation: number;

  constructor(inner: ResizableDevice, hooks: Hooks) {
    this.#inner = inner;
    this.#hooks = hooks;
    this.#generation = hooks.generation;
  }

  get name(): string {
    return this.#inner.name;
  }
  get size(): number {
    return this.#inner.size;
  }
  get writable(): boolean {
    return this.#inner.writable;
  }

  #operation(kind: Operation['kind'], offset = 0, length = 0): Operation {
    return { target: this.name, kind, offset, length };
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    await this.#hooks.run(this.#generation, this.#operation('read', offset, target.byteLength), () =>
      this.#inner.read(offset, target),
    );
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    await this.#hooks.run(this.#generation, this.#operation('write', offset, source.byteLength), () =>
      this.#inner.write(offset, source),
    );
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#hooks.run(this.#generation, this.#operation('discard', offset, length), async () =>
      this.#inner.discard?.(offset, length),
    );
  }

  async *allocation(offset: number, length: number): AsyncGenerator<AllocationExtent> {
    const extents: AllocationExtent[] = [];
    await this.#hooks.run(this.#generation, this.#operation('allocation', offset, length), async () => {
      for await (const extent of allocationOf(this.#inner, offset, length)) extents.push(extent);
    });
    yield* extents;
  }

  async flush(): Promise<void> {
    await this.#hooks.run(this.#generation, this.#operation('flush'), () => this.#inner.flush());
  }

  async resize(size: number): Promise<void> {
    await this.#hooks.run(this.#generation, this.#operation('resize', size), () => this.#inner.resize(size));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export class HookedFolder implements Folder {
  readonly #inner: Folder;
  readonly #hooks: Hooks;
  readonly #generation: number;

  constructor(inner: Folder, hooks: Hooks) {
    this.#inner = inner;
    this.#hooks = hooks;
    this.#generation = hooks.generation;
  }

  get name(): string {
    return this.#inner.name;
  }

  list(): Promise<string[]> {
    return this.#inner.list();
  }

  create(name: string): Promise<ResizableDevice> {
    return this.#hooks.run(
      this.#generation,
      this.#operation('create', name),
      async () => new HookedDevice(await this.#inner.create(name), this.#hooks),
    );
  }

  async open(name: string, options: { writable: boolean }): Promise<ResizableDevice> {
    return new HookedDevice(await this.#inner.open(name, options), this.#hooks);
  }

  remove(name: string): Promise<void> {
    return this.#hooks.run(this.#generation, this.#operation('remove', name), () => this.#inner.remove(name));
  }

  sync(): Promise<void> {
    return this.#hooks.run(this.#generation, this.#operation('sync', ''), () => this.#inner.sync());
  }

  #operation(kind: Operation['kind'], name: string): Operation {
    return { target: `${this.name}/${name}`, kind, offset: 0, length: 0 };
  }
}

/** A promise and the functions that settle it. */
export interface Signal {
  readonly promise: Promise<void>;
  readonly fire: () => void;
}

export function signal(): Signal {
  let resolvePromise: (() => void) | undefined;
  const promise = new Promise<void>((resolve) => {
    resolvePromise = resolve;
  });
  return { promise, fire: () => resolvePromise?.() };
}

/** Lets everything that needs no timer and no I/O go on until it stands still. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** A device error as the devices of the package throw it, with the code of the operating system. */
export function systemFailure(code: 'EIO' | 'ENOSPC' | 'EFBIG'): Error {
  return Object.assign(new Error(`${code}: planted by the test`), { code });
}
