/** Figures of benchmarks and how they are shown. */

export interface Figures {
  readonly name: string;
  readonly unit: string;
  /** One value for each contender. */
  readonly values: Record<string, number>;
}

/** The median of several runs of the same figures. */
export function medians(runs: readonly (readonly Figures[])[]): Figures[] {
  const [first = []] = runs;
  return first.map(({ name, unit, values }, index) => ({
    name,
    unit,
    values: Object.fromEntries(
      Object.keys(values).map((contender) => [
        contender,
        median(runs.map((run) => run[index]?.values[contender] ?? Number.NaN)),
      ]),
    ),
  }));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** As a Markdown table, with the ratio of the first contender to each other one. */
export function markdown(figures: readonly Figures[]): string {
  const contenders = [...new Set(figures.flatMap(({ values }) => Object.keys(values)))];
  const [own = '', ...others] = contenders;
  const header = ['workload', 'unit', ...contenders, ...others.map((other) => `${own} : ${other}`)];
  const rows = figures.map(({ name, unit, values }) => [
    name,
    unit,
    ...contenders.map((contender) => format(values[contender])),
    ...others.map((other) => ratio(values[own], values[other])),
  ]);
  return table(header, rows);
}

/** A Markdown table. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, header.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Three digits that count; nothing where nothing was measured. */
export const format = (value: number | undefined): string => {
  if (value === undefined) return '';
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
};

const ratio = (own: number | undefined, other: number | undefined): string =>
  own === undefined || other === undefined ? '' : (own / other).toFixed(2);
