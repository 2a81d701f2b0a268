/** All benchmarks by name. Each takes a size in bytes, which scales how much it does, whose turn it is to begin, and who takes part. */
import { creation } from './creation.js';
import { deletion } from './deletion.js';
import { depth } from './depth.js';
import { firstWrites } from './first-writes.js';
import { report } from './nbd/report.js';
import { type Choice, nbd } from './nbd.js';
import { opening } from './opening.js';
import { snapshotSet } from './snapshot-set.js';
import { steadyState } from './steady-state.js';
import { type Figures, markdown } from './table.js';
import { traffic } from './traffic.js';

export type Suite = (size: number, turn?: number, choice?: Choice) => Promise<Figures[]>;

export const SUITES: Record<string, Suite> = {
  'first-writes': firstWrites,
  'steady-state': steadyState,
  depth,
  creation,
  deletion,
  'snapshot-set': snapshotSet,
  opening,
  traffic,
  nbd,
};

/** How the figures of a suite are shown. */
export const shown = (name: string, figures: readonly Figures[]): string =>
  name === 'nbd' ? report(figures) : markdown(figures);
