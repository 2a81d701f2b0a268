/** Tables on a terminal, where a character takes no column, one or two. */
import stringWidth from 'string-width';

/** Cut to `width` columns, with an ellipsis if something is missing. */
export function cutTo(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  let kept = '';
  for (const { segment } of new Intl.Segmenter('en').segment(text)) {
    if (stringWidth(kept + segment) >= width) break;
    kept += segment;
  }
  return `${kept}…`;
}

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Lines of a table: titles, then rows, each column as wide as its widest cell. Cells may be coloured. */
export function tableLines(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const widths = columns.map(({ title }, i) =>
    Math.max(stringWidth(title), ...rows.map((row) => stringWidth(row[i] ?? ''))),
  );
  const line = (cells: readonly string[]) =>
    columns
      .map(({ align }, i) => {
        const cell = cells[i] ?? '';
        const padding = ' '.repeat((widths[i] ?? 0) - stringWidth(cell));
        return align === 'right' ? padding + cell : cell + padding;
      })
      .join('  ')
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...rows.map(line)];
}
