/**
 * A folder of resizable files: what a directory store needs from the file system.
 *
 * Creating and removing a file is durable only after `sync`; the content of a file after its own `flush`.
 */
import type { ResizableDevice } from './block-device.js';

export interface Folder {
  /** What messages call it: a path. */
  readonly name: string;
  /** Names of the files in it, in no particular order. */
  list(): Promise<string[]>;
  /** Makes a new empty file. @throws DeviceError if the name is taken. */
  create(name: string): Promise<ResizableDevice>;
  /**
   * Opens a file.
   * @param options `lock`: where files can be locked, a writer then excludes everybody, and readers share
   * @throws NotFoundError if there is none of that name; InUseError
   */
  open(name: string, options: { writable: boolean; lock?: boolean }): Promise<ResizableDevice>;
  /** Removes a file; open devices of it go on working. @throws NotFoundError if there is none of that name. */
  remove(name: string): Promise<void>;
  /** Makes creations and removals so far durable. */
  sync(): Promise<void>;
}
