/** Diff areas on a disk that arrives later than the volume. */
import type { Folder } from '../../src/device/folder.js';
import { FORMAT_SIGNATURE } from '../../src/format/constants.js';
import { type LateOptions, NotFoundError } from '../../src/index.js';

export interface LateDisk {
  isThere: boolean;
  readonly options: LateOptions;
}

/** The control file is where it always is; diff areas that were made before are on the disk that may not be there. */
export function withoutAreas(folder: Folder, disk: LateDisk): Folder {
  return {
    name: folder.name,
    list: () => folder.list(),
    create: (name) => folder.create(name),
    remove: (name) => folder.remove(name),
    sync: () => folder.sync(),
    open: async (name, options) => {
      if (!disk.isThere && !name.startsWith(`{${FORMAT_SIGNATURE}}`))
        throw new NotFoundError(`there is no ${name}`);
      return folder.open(name, options);
    },
  };
}
