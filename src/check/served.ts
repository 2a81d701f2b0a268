/** Looks for damage in the snapshots of a volume while it is in use; see `scrub/stored.ts` for how. */
import { ReadOnlyError } from '../errors.js';
import { Pace } from '../scrub/pace.js';
import type { ScrubOptions } from '../scrub/scrub.js';
import { checkStored } from '../scrub/stored.js';
import type { Problem } from '../snapshot/problem.js';
import type { Volume } from '../volume/volume.js';
import { checkWindowsVolume } from './check.js';

export interface ServedCheckOptions extends ScrubOptions {
  /** Also read every copy and test its checksum: `Volume.scrub`. */
  readonly scrub?: boolean;
}

/** @throws ReadOnlyError if the volume is open for reading only (`checkVolume` is for those), ClosedError, DeviceError */
export async function checkServedVolume(
  volume: Volume,
  options: ServedCheckOptions = {},
): Promise<readonly Problem[]> {
  const { life, writer, windows, device } = volume.parts;
  if (windows !== undefined) return life.run(() => checkWindowsVolume(device));
  if (writer === undefined) throw new ReadOnlyError(`${device.name} is open for reading only`);
  if (options.scrub === true) return (await volume.scrub(options)).problems;
  const { engine } = writer;
  const { signal, repair = false } = options;
  const pace = new Pace(engine.environment.clock, 0);
  return life.run(() =>
    checkStored(engine.scrubs.context, { pace, signal, repair, onProblem: () => undefined }),
  );
}
