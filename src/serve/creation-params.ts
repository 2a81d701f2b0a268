/** The options of a creation, as they go over the control channel. */
import { InvalidArgumentError } from '../errors.js';
import type { CreateSnapshotOptions } from '../snapshot/create.js';

export interface CreateParams {
  readonly label?: string | undefined;
  readonly writable?: boolean | undefined;
  readonly holdTimeoutMs?: number | undefined;
  /** Is what the file system does not use skipped, and how? */
  readonly unusedSpace?: 'auto' | 'frozen' | undefined;
  readonly hasInformation: boolean;
  readonly persistent?: boolean | undefined;
  readonly autoRelease?: boolean | undefined;
  readonly hidden?: boolean | undefined;
}

export interface CreateSetParams extends CreateParams {
  /** GUIDs of the volumes besides the one whose channel this is, all served by the same process; in the order wanted. */
  readonly others: readonly string[];
}

/** As they are sent; application information follows as bytes. @throws InvalidArgumentError */
export function createParams(options: CreateSnapshotOptions): CreateParams {
  const { label, writable, holdTimeoutMs, persistent, autoRelease, hidden, unusedSpace, applicationInfo } =
    options;
  if (typeof unusedSpace === 'object')
    throw new InvalidArgumentError(
      "unusedSpace of a volume that another process serves can only be 'auto' or 'frozen': a provider of yours cannot be sent there",
    );
  const hasInformation = applicationInfo !== undefined;
  return { label, writable, holdTimeoutMs, persistent, autoRelease, hidden, unusedSpace, hasInformation };
}

/** As they arrived. @param bytes application information, if there is any */
export function creationOptions(params: CreateParams, bytes: Uint8Array): CreateSnapshotOptions {
  const { label, writable, holdTimeoutMs, hasInformation, persistent, autoRelease, hidden, unusedSpace } =
    params;
  return {
    ...(label === undefined ? {} : { label }),
    ...(writable === undefined ? {} : { writable }),
    ...(holdTimeoutMs === undefined ? {} : { holdTimeoutMs }),
    ...(hasInformation ? { applicationInfo: bytes } : {}),
    ...(persistent === undefined ? {} : { persistent }),
    ...(autoRelease === undefined ? {} : { autoRelease }),
    ...(hidden === undefined ? {} : { hidden }),
    ...(unusedSpace === undefined ? {} : { unusedSpace }),
  };
}
