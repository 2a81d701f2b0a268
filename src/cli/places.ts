/** Places, as people write them: paths, addresses of NBD exports, and snapshots at `VOLUME@ID`. */
import { stat } from 'node:fs/promises';
import { InvalidArgumentError } from 'commander';
import { looksLikeUri, parseNbdUri, VolsnapError } from '../index.js';
import { UsageError } from './failure.js';

/** Any path but none at all, which a variable that is not set leaves. @throws InvalidArgumentError of commander, which ends as wrong usage */
export function parsePath(text: string): string {
  if (text === '') throw new InvalidArgumentError('Give a path; this is an empty text.');
  return text;
}

/** A path, or the address of an export, well formed. @throws InvalidArgumentError of commander */
export function parseVolume(text: string): string {
  if (!looksLikeUri(text)) return parsePath(text);
  const why = addressFault(text);
  if (why !== undefined) throw new InvalidArgumentError(`${why}.`);
  return text;
}

/** The next one of several. @throws InvalidArgumentError of commander */
export const parseVolumes = (text: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  parseVolume(text),
];

/** `VOLUME` or `VOLUME@ID`; as it was given. @throws InvalidArgumentError of commander */
export function parseVolumeOrSnapshot(text: string): string {
  parseVolume(looksLikeUri(text) ? splitAddress(text).path : text);
  return text;
}

/** A volume, or a snapshot of it. */
export interface Source {
  readonly path: string;
  readonly id: string | undefined;
}

/** Takes `VOLUME@ID` apart. A file that has the whole text as its name is the volume. @throws UsageError */
export async function parseSource(text: string): Promise<Source> {
  const source = looksLikeUri(text) ? splitAddress(text) : await splitPath(text);
  if (source.id === '') throw new UsageError(`${text}: an id, or the beginning of one, follows the @`);
  return source;
}

async function splitPath(text: string): Promise<Source> {
  const at = text.lastIndexOf('@');
  const isWhole = at <= 0 || (await stat(text).catch(() => undefined)) !== undefined;
  return isWhole ? { path: text, id: undefined } : splitAt(text, at);
}

/** An `@` before the host is that of a user. In the name of the export, and in parameters, it is written `%40`. */
function splitAddress(text: string): Source {
  const at = text.lastIndexOf('@');
  const authority = text.indexOf('://') + 3;
  const isInAuthority = !/[/?#]/.test(text.slice(authority, Math.max(authority, at)));
  const isWhole = at < 0 || (isInAuthority && addressFault(text) === undefined);
  return isWhole ? { path: text, id: undefined } : splitAt(text, at);
}

const splitAt = (text: string, at: number): Source => ({ path: text.slice(0, at), id: text.slice(at + 1) });

/** What is wrong with an address; `undefined`: nothing. */
function addressFault(text: string): string | undefined {
  try {
    parseNbdUri(text);
    return undefined;
  } catch (error) {
    if (!(error instanceof VolsnapError)) throw error;
    return error.message;
  }
}
