/** What is asked of the contenders through NBD, and of whom what. */
import { Name } from './contenders.js';
import type { NbdLoad } from './fio.js';

export const Workload = {
  firstLarge: 'first writes, 1 MiB sequential',
  firstSmall: 'first writes, 16 KiB random',
  rewriteLarge: 'copied already, 1 MiB write',
  rewriteSmall: 'copied already, 4 KiB random write',
  readLarge: 'live, 1 MiB read',
  readSmall: 'live, 4 KiB random read',
  readAlone: 'live, 4 KiB random read, depth 1',
  readSnapshot: 'snapshot all copied, 1 MiB read',
} as const;

export interface Cell extends NbdLoad {
  readonly contenders: readonly string[];
  /** Is the snapshot read, not the live volume? */
  readonly ofSnapshot?: true;
}

const OWN = [Name.writeback, Name.ordered] as const;
const FIRST = [...OWN, Name.plain, Name.copyBeforeWrite, Name.overlay, Name.nbdkitCow];
const STEADY = [...OWN, Name.plain, Name.copyBeforeWrite, Name.qemuRaw, Name.nbdkit];
const LARGE = 2 ** 20;
/** Of large reads: one of 256 MiB takes a tenth of a second, and is 256 requests, too few for what serves them to be compiled. */
const PASSES = 4;

/** Each group starts with fresh volumes and servers, and goes through its cells in this order. */
export const GROUPS: readonly (readonly Cell[])[] = [
  [
    { name: Workload.firstLarge, kind: 'write', request: LARGE, depth: 16, contenders: FIRST },
    { name: Workload.rewriteLarge, kind: 'write', request: LARGE, depth: 16, contenders: STEADY },
    { name: Workload.rewriteSmall, kind: 'randwrite', request: 4096, depth: 16, contenders: STEADY },
    { name: Workload.readLarge, kind: 'read', request: LARGE, depth: 16, share: PASSES, contenders: STEADY },
    { name: Workload.readSmall, kind: 'randread', request: 4096, depth: 16, contenders: STEADY },
    { name: Workload.readAlone, kind: 'randread', request: 4096, depth: 1, share: 1 / 8, contenders: STEADY },
    {
      name: Workload.readSnapshot,
      kind: 'read',
      request: LARGE,
      depth: 16,
      share: PASSES,
      contenders: [Name.writeback, Name.plain, Name.qemuRaw],
      ofSnapshot: true,
    },
  ],
  [
    {
      name: Workload.firstSmall,
      kind: 'randwrite',
      request: 16_384,
      depth: 16,
      // Within the time for which memory stays that was furnished.
      share: 1 / 2,
      contenders: FIRST,
    },
  ],
];
