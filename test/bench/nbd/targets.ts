/** The ratios that are wanted of volsnap through NBD (docs/performance.md), each of one workload in one run. */
import { Name } from './contenders.js';
import { Workload } from './workloads.js';

export interface Target {
  readonly workload: string;
  readonly own: string;
  readonly peer: string;
  /** Times the speed of the peer; `undefined` where nothing is wanted of this kind. */
  readonly must?: number;
  readonly aim?: number;
}

const COPIED_OR_LIVE = [Workload.rewriteLarge, Workload.rewriteSmall, Workload.readLarge, Workload.readSmall];

export const TARGETS: readonly Target[] = [
  ...first(Workload.firstLarge, Name.writeback, 1, 1.5),
  { workload: Workload.firstLarge, own: Name.writeback, peer: Name.floor, aim: 0.7 },
  ...first(Workload.firstSmall, Name.writeback, 0.9, 1.2),
  ...first(Workload.firstLarge, Name.ordered, 0.8, 1),
  ...first(Workload.firstSmall, Name.ordered, 0.6, 0.9),
  ...[Name.writeback, Name.ordered].flatMap((own) =>
    COPIED_OR_LIVE.flatMap((workload) => [
      { workload, own, peer: Name.qemuRaw, must: 1 },
      { workload, own, peer: Name.nbdkit, aim: 0.8 },
    ]),
  ),
  { workload: Workload.readSnapshot, own: Name.writeback, peer: Name.plain, must: 0.9, aim: 1 },
];

function first(workload: string, own: string, must: number, aim: number): Target[] {
  return [{ workload, own, peer: Name.copyBeforeWrite, must, aim }];
}
