/** `volsnap policy`: what happens to writes when there is no room for copies. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { SPACE_POLICIES, type SpacePolicy, type SpacePolicyOptions } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { parseSeconds } from '../seconds.js';
import type { Runner, Session } from '../session.js';
import { changeVolume } from '../volumes.js';

interface PolicyOptions extends WritingOptions {
  readonly wait?: number;
  readonly after?: NonNullable<SpacePolicyOptions['afterWait']>;
}

export const policyCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'policy',
    summary: 'choose what happens to writes when there is no room for copies',
    details:
      'delete-oldest: the oldest snapshots go until there is room (default). hold-writes: writes wait until space is given. fail-writes: writes fail, and snapshots stay. Snapshots that are held never go.',
    examples: [
      'volsnap policy disk.img fail-writes',
      'volsnap policy disk.img hold-writes --wait 300 --after delete-oldest',
    ],
    writes: true,
  })
    .argument('<POLICY>', SPACE_POLICIES.join(', '), parsePolicy)
    .option('--wait <SECONDS>', 'with hold-writes: how long a write waits (default: 60)', parseSeconds)
    .addOption(
      new Option('--after <POLICY>', 'with hold-writes: what happens then (default: fail-writes)').choices([
        'fail-writes',
        'delete-oldest',
      ]),
    )
    .action(run(setPolicy));

/** @throws InvalidArgumentError of commander */
function parsePolicy(text: string): SpacePolicy {
  const policy = SPACE_POLICIES.find((name) => name === text);
  if (policy === undefined) throw new InvalidArgumentError(`It is one of ${SPACE_POLICIES.join(', ')}.`);
  return policy;
}

async function setPolicy(
  session: Session,
  path: string,
  policy: SpacePolicy,
  options: PolicyOptions,
): Promise<undefined> {
  const { wait, after } = options;
  if (policy !== 'hold-writes' && (wait !== undefined || after !== undefined))
    throw new UsageError('--wait and --after go with hold-writes only');
  const rules = await changeVolume(session, path, options, async (volume) => {
    await volume.setSpacePolicy(policy, {
      ...(wait === undefined ? {} : { waitMs: Math.round(wait * 1000) }),
      ...(after === undefined ? {} : { afterWait: after }),
    });
    return volume.figures.space;
  });
  const { output, json } = session;
  if (json) {
    await output.json({ policy: rules?.policy, waitMs: rules?.waitMs, afterWait: rules?.afterWait });
  } else await output.print(`When there is no room for copies: ${policyPhrase(rules ?? { policy })}.`);
}

/** `fail-writes`, or `hold-writes, for up to 60 s, then fail-writes`. */
export function policyPhrase(rules: { readonly policy: SpacePolicy } & SpacePolicyOptions): string {
  const { policy, waitMs = 0, afterWait } = rules;
  return policy === 'hold-writes' ? `${policy}, for up to ${waitMs / 1000} s, then ${afterWait}` : policy;
}
