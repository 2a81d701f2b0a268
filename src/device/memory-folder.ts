/** A folder of files in memory. */
import { DeviceError, NotFoundError } from '../errors.js';
import { checkFileName } from './file-name.js';
import type { Folder } from './folder.js';
import { MemoryContent, MemoryDevice } from './memory-device.js';

export class MemoryFolder implements Folder {
  readonly name: string;
  readonly #files = new Map<string, MemoryContent>();

  /** @param name what messages call it */
  constructor(name = 'memory') {
    this.name = name;
  }

  async list(): Promise<string[]> {
    return [...this.#files.keys()];
  }

  async create(name: string): Promise<MemoryDevice> {
    checkFileName(this.name, name);
    if (this.#files.has(name)) {
      throw new DeviceError(`cannot create ${this.#pathOf(name)}: it exists; choose another name`);
    }
    const content = new MemoryContent(0);
    this.#files.set(name, content);
    return new MemoryDevice(content, { name: this.#pathOf(name) });
  }

  async open(name: string, options: { writable: boolean }): Promise<MemoryDevice> {
    return new MemoryDevice(this.#find(name), { name: this.#pathOf(name), writable: options.writable });
  }

  async remove(name: string): Promise<void> {
    this.#find(name);
    this.#files.delete(name);
  }

  async sync(): Promise<void> {
    // Nothing here outlives the process.
  }

  #find(name: string): MemoryContent {
    checkFileName(this.name, name);
    const content = this.#files.get(name);
    if (content === undefined) throw new NotFoundError(`there is no ${this.#pathOf(name)}`);
    return content;
  }

  #pathOf(name: string): string {
    return `${this.name}/${name}`;
  }
}
