/** A scrub in the background of whatever else is done to a volume: it finds nothing, because nothing is damaged. */
import { DeviceError, VolsnapError, type Volume } from '../../src/index.js';
import type { RunCounters } from './counters.js';
import type { Cycle } from './plan.js';
import type { Workload } from './workload.js';

const PACE = 8 * 1024 * 1024;

/** Begins one. It ends by itself, with the volume, or with its process; what is wrong with it is a complaint. */
export function scrubMeanwhile(
  volume: Volume,
  cycle: Cycle,
  { complaints, tolerated }: Workload,
  counters: RunCounters,
): void {
  const bytesPerSecond = cycle.steps % 2 === 0 ? 0 : PACE;
  volume.scrub({ bytesPerSecond, repair: true }).then(
    ({ problems }) => {
      counters.scrubs++;
      // A device that fails now and then is no damage, but a finding.
      const wrong = cycle.faultRate > 0 ? problems.filter(({ code }) => code === 'checksum') : problems;
      if (wrong.length > 0)
        complaints.push(`a scrub finds: ${wrong.map(({ message }) => message).join('; ')}`);
    },
    (error: unknown) => {
      const isExpected =
        (error instanceof VolsnapError && error.code === 'CLOSED') ||
        (error instanceof DeviceError && tolerated.includes(error.code));
      if (!isExpected) complaints.push(`a scrub fails: ${error instanceof Error ? error.stack : error}`);
    },
  );
}
