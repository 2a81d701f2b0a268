/**
 * A handle of a simulated directory: the contract of `Folder`. See `simulated-directory.ts` for what a crash keeps.
 */
import type { ResizableDevice } from '../device/block-device.js';
import { checkFileName } from '../device/file-name.js';
import type { Folder } from '../device/folder.js';
import { DeviceError } from '../errors.js';
import type { Fault, FolderOperation } from './faults.js';
import { never } from './operation.js';
import type { NameChange, SimulatedDirectory } from './simulated-directory.js';

export class SimulatedFolder implements Folder {
  readonly name: string;
  readonly #directory: SimulatedDirectory;
  readonly #generation: number;
  #syncFailed: DeviceError | undefined;

  constructor(directory: SimulatedDirectory) {
    this.name = directory.name;
    this.#directory = directory;
    this.#generation = directory.scheduler.generation;
  }

  async list(): Promise<string[]> {
    // The order is nobody's business, so it is drawn.
    return this.#submit('list', '', () => this.#directory.random.shuffle(this.#directory.fileNames));
  }

  async create(name: string): Promise<ResizableDevice> {
    checkFileName(this.name, name);
    return this.#change('create', name, (change) => {
      this.#directory.take(change);
      return this.#directory.file(name).open();
    });
  }

  async open(name: string, { writable }: { writable: boolean }): Promise<ResizableDevice> {
    checkFileName(this.name, name);
    return this.#submit('open', name, () => this.#directory.file(name).open({ writable }));
  }

  async remove(name: string): Promise<void> {
    checkFileName(this.name, name);
    return this.#change('remove', name, (change) => this.#directory.take(change));
  }

  async sync(): Promise<void> {
    const point = this.#directory.flushPoint();
    return this.#submit('sync', '', (isIgnored) => {
      if (this.#syncFailed !== undefined) throw this.#syncFailed;
      if (!isIgnored) this.#directory.makeDurable(point);
    });
  }

  #change<T>(kind: 'create' | 'remove', name: string, effect: (change: NameChange) => T): Promise<T> {
    if (this.#generation !== this.#directory.scheduler.generation) return never();
    const change = this.#directory.begin(name, kind === 'create');
    return this.#submit(
      kind,
      name,
      () => effect(change),
      () => this.#directory.acknowledge(change),
    );
  }

  #submit<T>(
    kind: FolderOperation,
    name: string,
    effect: (isIgnored: boolean) => T,
    settle?: () => void,
  ): Promise<T> {
    const { scheduler, faults } = this.#directory;
    if (this.#generation !== scheduler.generation) return never();
    const fault = faults.strike(kind, this.name, 0, 0);
    return scheduler.submit<T>({
      kind,
      target: name === '' ? this.name : `${this.name}/${name}`,
      offset: 0,
      length: 0,
      effect: () => {
        if (fault !== undefined) this.#failOn(fault, kind, name);
        return effect(fault?.effect === 'ignore');
      },
      ...(settle === undefined ? {} : { settle }),
      ...(fault === undefined ? {} : { delayMicroseconds: fault.delayMicroseconds }),
    });
  }

  #failOn({ effect: code }: Fault, kind: FolderOperation, name: string): void {
    if (code !== 'EIO' && code !== 'ENOSPC' && code !== 'ENODEV') return;
    const cause = Object.assign(new Error(`${code}: simulated`), { code });
    const error = new DeviceError(`${kind} ${name} in ${this.name} failed: ${code}`, { cause });
    if (kind === 'sync') this.#syncFailed = error;
    throw error;
  }
}
