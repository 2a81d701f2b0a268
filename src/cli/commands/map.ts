/** `volsnap map`: a picture of a volume, showing where it changed since a snapshot. */
import type { Command } from 'commander';
import { NotFoundError } from '../../index.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { findSnapshot } from '../ids.js';
import { drawMap, gridOf, measure } from '../picture.js';
import type { Runner, Session } from '../session.js';
import { formatShare, formatSize } from '../size.js';
import { snapshotPhrase } from '../snapshots.js';
import { shellWord } from '../text.js';
import { readVolume } from '../volumes.js';

export const mapCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'map',
    summary: 'draw where a volume was overwritten, and copied, since a snapshot',
    details: 'Each cell of the picture is a part of the volume.',
    examples: ['volsnap map disk.img', 'volsnap map disk.img 1a2b3c4d'],
  })
    .argument('[ID]', 'the snapshot (default: the oldest)')
    .action(run(map));

async function map(
  session: Session,
  path: string,
  id: string | undefined,
  options: CommonOptions,
): Promise<undefined> {
  const { output, signal, json } = session;
  await readVolume(session, path, options, async (volume) => {
    const { snapshots, size } = volume;
    const since = id === undefined ? snapshots[0] : findSnapshot(volume, id);
    if (since === undefined)
      throw new NotFoundError(`${path} has no snapshots yet; take one: volsnap create ${shellWord(path)}`);
    const grid = gridOf(size, output.width);
    const cells = await measure(volume.changedBlocks({ since, copiedOnly: true, signal }), grid);
    const changedBytes = sumOf(cells);
    // What has a copy, or was left out, less what has a copy.
    const all =
      since.unusedBytes === 0 ? cells : await measure(volume.changedBlocks({ since, signal }), grid);
    const unusedCells = all.map((bytes, cell) => bytes - (cells[cell] ?? 0));
    const unusedBytes = sumOf(unusedCells);
    if (json) {
      await output.json({
        volume: path,
        volumeSize: size,
        since: since.id,
        changedBytes,
        movedBytes: since.movedBytes,
        cellBytes: grid.cellSize,
        cells,
        unusedBytes,
        unusedCells,
      });
      return;
    }
    await output.print(
      ...drawMap({ copied: cells, unused: unusedCells }, grid, output.colors),
      '',
      `${formatSize(changedBytes)} of ${formatSize(size)} (${formatShare(changedBytes, size)}) copied since snapshot ${snapshotPhrase(since, snapshots)}`,
      ...(since.movedBytes > 0
        ? [`${formatSize(since.movedBytes)} of it moved within the volume, and took no room`]
        : []),
      ...(unusedBytes > 0 ? [`${formatSize(unusedBytes)} left out, because nothing used it`] : []),
    );
  });
}

const sumOf = (cells: readonly number[]): number => cells.reduce((sum, bytes) => sum + bytes, 0);
