/** The picture that `map` draws: the volume as a grid of cells, read like a page. */
import type { ByteLength, ChangedExtent } from '../index.js';
import { BLOCK_SIZE } from '../index.js';
import type { Colors } from './output.js';
import { formatSize } from './size.js';

const COLUMNS_MAX = 64;
const ROWS_MAX = 16;
/** What a row has besides its cells. */
const MARGIN = 14;
const LABEL_WIDTH = 10;

export interface Grid {
  readonly volumeSize: ByteLength;
  readonly columns: number;
  /** Bytes of the volume that a cell stands for; the last one may have less. */
  readonly cellSize: ByteLength;
  readonly cellCount: number;
}

/** How much of a cell changed, as a picture. */
const SHADES = [
  { upTo: 0, sign: '·', text: 'none', color: 'dim' },
  { upTo: 0.25, sign: '░', text: 'to 25 %', color: 'blue' },
  { upTo: 0.5, sign: '▒', text: 'to 50 %', color: 'cyan' },
  { upTo: 0.999, sign: '▓', text: 'more', color: 'yellow' },
  { upTo: 1, sign: '█', text: 'all', color: 'red' },
] as const;

/** A cell of which most was left out as unused, and nothing copied. */
const LEFT_OUT = { sign: '-', text: 'left out', color: 'dim' } as const;

/** Bytes of each cell. */
export interface CellBytes {
  readonly copied: readonly ByteLength[];
  readonly unused: readonly ByteLength[];
}

/** A grid that fits `width` columns of text. */
export function gridOf(volumeSize: ByteLength, width: number): Grid {
  const fitting = Math.min(COLUMNS_MAX, width - MARGIN);
  const columns = 2 ** Math.floor(Math.log2(fitting));
  const cellsMax = columns * ROWS_MAX;
  const cellSize = Math.max(1, Math.ceil(volumeSize / cellsMax / BLOCK_SIZE)) * BLOCK_SIZE;
  return { volumeSize, columns, cellSize, cellCount: Math.ceil(volumeSize / cellSize) };
}

/** Bytes of each cell that lie in the extents. */
export async function measure(
  extents: AsyncIterable<ChangedExtent>,
  { cellSize, cellCount }: Grid,
): Promise<ByteLength[]> {
  const cells = Array<ByteLength>(cellCount).fill(0);
  for await (const { offset, length } of extents) {
    const end = offset + length;
    for (let cell = Math.floor(offset / cellSize); cell * cellSize < end && cell < cellCount; cell++) {
      const from = Math.max(offset, cell * cellSize);
      const to = Math.min(end, (cell + 1) * cellSize);
      cells[cell] = (cells[cell] ?? 0) + to - from;
    }
  }
  return cells;
}

/** Rows with the offset where each begins, and the legend. */
export function drawMap({ copied, unused }: CellBytes, grid: Grid, colors: Colors): string[] {
  const { columns, cellSize, cellCount, volumeSize } = grid;
  const rows: string[] = [];
  for (let first = 0; first < cellCount; first += columns) {
    const shades = copied.slice(first, first + columns).map((bytes, i) => {
      const size = Math.min(cellSize, volumeSize - (first + i) * cellSize);
      const isLeftOut = bytes === 0 && (unused[first + i] ?? 0) > size / 2;
      return isLeftOut ? LEFT_OUT : shadeOf(bytes / size);
    });
    const label = formatSize(first * cellSize).padStart(LABEL_WIDTH);
    rows.push(`${colors.dim(label)}  ${paint(shades, colors)}`);
  }
  const signs = unused.some((bytes) => bytes > 0) ? [...SHADES, LEFT_OUT] : SHADES;
  const legend = signs.map(({ sign, text, color }) => `${colors[color](sign)} ${text}`).join('   ');
  const indent = ' '.repeat(LABEL_WIDTH + 2);
  return [...rows, '', `${indent}${legend}   ${colors.dim(`(a cell: ${formatSize(cellSize)})`)}`];
}

/** Neighbours of one shade are coloured together. */
function paint(shades: readonly Shade[], colors: Colors): string {
  let line = '';
  for (let start = 0; start < shades.length; ) {
    const { sign, color } = shades[start] ?? LEFT_OUT;
    let end = start + 1;
    while (end < shades.length && shades[end]?.sign === sign) end++;
    line += colors[color](sign.repeat(end - start));
    start = end;
  }
  return line;
}

type Shade = (typeof SHADES)[number] | typeof LEFT_OUT;

const shadeOf = (share: number) => SHADES.find(({ upTo }) => share <= upTo) ?? SHADES[4];
