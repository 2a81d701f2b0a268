/** Diff areas on a disk that arrives later than the volume. */
import type { Folder } from '../../src/device/folder.js';
import { FORMAT_SIGNATURE } from '../../src/format/constants.js';
import { type LateOptions, NotFoundError } from '../../src/index.js';

export interface LateDisk {
  isThere: boolean;
  readonly options: LateOptions;
}

/** One for all: they are looked for all the time, and most of the cost of an error is where it was made. */
const NOT_THERE = new NotFoundError('the device with the diff areas is not there');

/** The control file is where it always is; diff areas that were made before are on the disk that may not be there. */
export function withoutAreas(folder: Folder, disk: LateDisk): Folder {
  const made = new Set<string>();
  const has = (name: string) => disk.isThere || made.has(name) || name.startsWith(`{${FORMAT_SIGNATURE}}`);
  const check = (name: string) => {
    if (!has(name)) throw NOT_THERE;
  };
  return {
    name: folder.name,
    list: async () => (await folder.list()).filter(has),
    sync: () => folder.sync(),
    create: async (name) => {
      made.add(name);
      return folder.create(name);
    },
    remove: async (name) => {
      check(name);
      return folder.remove(name);
    },
    open: async (name, options) => {
      check(name);
      return folder.open(name, options);
    },
  };
}
