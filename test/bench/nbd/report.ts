/** What `nbd` measured, as Markdown: speed, processor time, and what is wanted. */
import { type Figures, format, table } from '../table.js';
import { CONTENDERS, Name } from './contenders.js';
import { TARGETS } from './targets.js';

export const Unit = { speed: 'MiB/s', processor: 'processor seconds/GiB', ratio: 'times' } as const;

export function report(figures: readonly Figures[]): string {
  return [Unit.speed, Unit.processor, undefined]
    .map((unit) => (unit === undefined ? wanted(figures) : measured(figures, unit)))
    .join('\n\n');
}

/** How a ratio is called among the figures. */
export const ratioName = (workload: string, own: string, peer: string): string =>
  `${workload}: ${own} : ${peer}`;

/** A row for each contender, a column for each workload. */
function measured(figures: readonly Figures[], unit: string): string {
  const columns = figures.filter((figure) => figure.unit === unit);
  const rows = [...CONTENDERS.map(({ name }) => name), Name.floor].map((contender) => {
    const values = columns.map(({ values }) => values[contender]);
    const tookPart = values.some((value) => value !== undefined);
    return [contender, ...values.map((value) => (tookPart ? format(value) : 'not installed'))];
  });
  return table([unit, ...columns.map(({ name }) => name)], rows);
}

function wanted(figures: readonly Figures[]): string {
  const rows = TARGETS.map(({ workload, own, peer, must, aim }) => {
    const name = ratioName(workload, own, peer);
    const ratio = figures.find((figure) => figure.name === name)?.values.ratio;
    const met = (target: number | undefined) => {
      if (target === undefined) return '';
      if (ratio === undefined) return `${target}: not measured`;
      return `${target}: ${ratio >= target ? 'met' : 'not met'}`;
    };
    return [workload, own, peer, ratio?.toFixed(2) ?? '', met(must), met(aim)];
  });
  return table(['workload', 'own', 'peer', 'times', 'must', 'aim'], rows);
}
