/** A block device, whatever it is, as an export. */
import { type Allocated, allocationOf } from '../../device/allocation.js';
import type { BlockDevice } from '../../device/block-device.js';
import { writeZeros } from '../../device/zeros.js';
import type { ByteLength, ByteOffset } from '../../units.js';
import type { StatusExtent } from '../wire/block-status.js';
import { AllocationStatus, BASE_ALLOCATION } from '../wire/constants.js';
import type { ExportCatalog, NbdExport, StatusContext, StatusContexts } from './export.js';

/** A fixed list of contexts; a query is a name, or a namespace with its colon. */
export class FixedContexts implements StatusContexts {
  readonly #contexts: readonly StatusContext[];

  constructor(contexts: readonly StatusContext[]) {
    this.#contexts = contexts;
  }

  list(query?: string): readonly string[] {
    const names = this.#contexts.map(({ name }) => name);
    if (query === undefined) return names;
    return names.filter((name) => name === query || (query.endsWith(':') && name.startsWith(query)));
  }

  select(query: string): readonly StatusContext[] {
    return this.#contexts.filter(({ name }) => name === query);
  }
}

/** `base:allocation`: what the source knows to be zero is a hole too, for nobody promises that space is set aside for it. */
export const allocationContext = (source: Allocated): StatusContext => ({
  name: BASE_ALLOCATION,
  async *extents(offset: ByteOffset, length: ByteLength): AsyncGenerator<StatusExtent> {
    const zeros = AllocationStatus.hole | AllocationStatus.zero;
    for await (const extent of allocationOf(source, offset, length)) {
      yield { length: extent.length, status: extent.zero ? zeros : 0 };
    }
  },
});

export class DeviceExport implements NbdExport {
  readonly name: string;
  readonly description: string;
  readonly contexts: StatusContexts;
  readonly #device: BlockDevice;

  constructor(name: string, device: BlockDevice) {
    this.name = name;
    this.description = device.name;
    this.#device = device;
    this.contexts = new FixedContexts([allocationContext(device)]);
  }

  get size(): ByteLength {
    return this.#device.size;
  }

  get writable(): boolean {
    return this.#device.writable;
  }

  get zeroesFast(): boolean {
    return this.#device.writeZeroes !== undefined;
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#device.read(offset, target);
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#device.write(offset, source);
  }

  async writeZeroes(offset: ByteOffset, length: ByteLength, keepAllocated: boolean): Promise<void> {
    const device = this.#device;
    if (!keepAllocated && device.writeZeroes !== undefined) return device.writeZeroes(offset, length);
    await writeZeros((at, source) => device.write(at, source), offset, length);
  }

  async discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    await this.#device.discard?.(offset, length);
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  release(): void {
    // The device belongs to whoever opened it.
  }
}

/** Exports that stay as they are. */
export class FixedCatalog implements ExportCatalog {
  readonly #exports: readonly NbdExport[];

  constructor(exports: readonly NbdExport[]) {
    this.#exports = exports;
  }

  list(): readonly NbdExport[] {
    return this.#exports;
  }

  async open(name: string): Promise<NbdExport | undefined> {
    return this.#exports.find((each) => each.name === name);
  }
}
