/** The images that servers serve: `disk.img` with the known content and holes, `large.img` with nothing. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { contentAt, EXPORT_SIZE, LARGE_SIZE, MIB } from '../case.ts';

export interface Images {
  readonly disk: string;
  /** The same content, for the exports that are not writable. */
  readonly still: string;
  readonly large: string;
}

export async function makeImages(folder: string): Promise<Images> {
  const images = {
    disk: join(folder, 'disk.img'),
    still: join(folder, 'still.img'),
    large: join(folder, 'large.img'),
  };
  for (const path of [images.disk, images.still]) {
    const file = await open(path, 'w');
    for (const start of [0, 8 * MIB]) await file.write(contentAt(start, 4 * MIB), 0, 4 * MIB, start);
    await file.truncate(EXPORT_SIZE);
    await file.close();
  }
  const file = await open(images.large, 'w');
  await file.truncate(LARGE_SIZE);
  await file.close();
  return images;
}
