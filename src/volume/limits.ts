/** How much room copies may take, and what happens when there is none; see `Volume`. */
import { checkWhole } from '../arguments.js';
import type { SpacePolicy } from '../format/start-block.js';
import type { SpacePolicyOptions } from '../snapshot/overflow.js';
import type { ByteLength } from '../units.js';
import type { Engine } from './engine.js';

/** @throws InvalidArgumentError, DeviceError */
export async function setPolicy(
  { space, reverts }: Engine,
  policy: SpacePolicy,
  options: SpacePolicyOptions,
): Promise<void> {
  await space.setPolicy(policy, options);
  // One may have rested for lack of room.
  reverts.resume();
}

/** @throws InvalidArgumentError, DeviceError */
export async function setMaximum(
  { store, space, merging, reverts }: Engine,
  maximumSize: ByteLength,
): Promise<void> {
  checkWhole('maximum size', maximumSize);
  await store.control.setMaximumSize(maximumSize);
  await space.byDeletion.shrinkTo(maximumSize);
  space.relieved();
  merging.wake();
  reverts.resume();
}
