/** What is kept with a snapshot besides its copies: a label, and bytes of whoever had it taken. */
import { createReadStream } from 'node:fs';
import { InvalidArgumentError as WrongArgument } from 'commander';
import { InvalidArgumentError } from '../index.js';
import { explained } from './failure.js';

/** More bytes than a snapshot can hold, whatever else it holds. */
const INFORMATION_MAX = 16_256;

/** @throws InvalidArgumentError of commander, which ends as wrong usage */
export function parseLabel(text: string): string {
  if (Buffer.byteLength(text) > INFORMATION_MAX)
    throw new WrongArgument(`A label has at most ${INFORMATION_MAX} bytes.`);
  return text;
}

/**
 * The bytes of a file, or of a pipe, which may never end, or never begin: at an interruption it is given up.
 * @throws AbortError, InvalidArgumentError, DeviceError
 */
export async function readInformation(path: string, signal: AbortSignal): Promise<Uint8Array> {
  signal.throwIfAborted();
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  return explained(`read ${path}`, () => Promise.race([readAll(path), stopped]));
}

async function readAll(path: string): Promise<Uint8Array> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of createReadStream(path)) {
    pieces.push(piece);
    length += piece.byteLength;
    if (length > INFORMATION_MAX)
      throw new InvalidArgumentError(`${path} is too large: at most ${INFORMATION_MAX} bytes fit a snapshot`);
  }
  return Buffer.concat(pieces);
}
