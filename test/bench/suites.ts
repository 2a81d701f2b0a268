/** All benchmarks by name. Each takes a size in bytes, which scales how much it does. */
import { creation } from './creation.js';
import { depth } from './depth.js';
import { firstWrites } from './first-writes.js';
import { opening } from './opening.js';
import { steadyState } from './steady-state.js';
import type { Figures } from './table.js';
import { traffic } from './traffic.js';

export const SUITES: Record<string, (size: number) => Promise<Figures[]>> = {
  'first-writes': firstWrites,
  'steady-state': steadyState,
  depth,
  creation,
  opening,
  traffic,
};
