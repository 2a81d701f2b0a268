/** Standard input, in pieces that suit a volume. */
import { createReadStream, fstatSync } from 'node:fs';
import type { Readable } from 'node:stream';
import type { ByteLength, ByteOffset } from '../index.js';
import { explained } from './failure.js';

export interface InputOptions {
  /** Where in the volume the first byte goes. */
  readonly offset: ByteOffset;
  /** Pieces end where the volume's offset is a multiple of it. */
  readonly chunkSize: ByteLength;
  readonly signal: AbortSignal;
}

/** Each piece is a buffer of its own. @throws AbortError, DeviceError */
export async function* readInput({ offset, chunkSize, signal }: InputOptions): AsyncGenerator<Buffer> {
  const input = standardInput();
  const stop = () => void input.destroy();
  signal.addEventListener('abort', stop, { once: true });
  try {
    let at = offset;
    let piece = Buffer.allocUnsafeSlow(chunkSize - (at % chunkSize));
    let filled = 0;
    const incoming = input[Symbol.asyncIterator]();
    for (;;) {
      signal.throwIfAborted();
      const next = await nextOf(incoming, signal);
      if (next === undefined) break;
      for (let used = 0; used < next.byteLength; ) {
        const count = next.copy(piece, filled, used);
        used += count;
        filled += count;
        if (filled < piece.byteLength) continue;
        yield piece;
        at += filled;
        piece = Buffer.allocUnsafeSlow(chunkSize);
        filled = 0;
      }
    }
    if (filled > 0) yield piece.subarray(0, filled);
  } finally {
    signal.removeEventListener('abort', stop);
    stop(); // Else what is left of it would keep the process alive.
  }
}

const STANDARD_INPUT = 0;

/**
 * For Node.js standard input ends at once where it is a block device or a directory: what the device holds would be left out
 * without a word. Those are read like files.
 */
function standardInput(): Readable {
  const found = fstatSync(STANDARD_INPUT);
  const isKnown = found.isFile() || found.isFIFO() || found.isSocket() || found.isCharacterDevice();
  return isKnown ? process.stdin : createReadStream('', { fd: STANDARD_INPUT, autoClose: false });
}

async function nextOf(incoming: AsyncIterator<unknown>, signal: AbortSignal): Promise<Buffer | undefined> {
  try {
    const { done, value } = await explained('read standard input', () => incoming.next());
    return done === true ? undefined : Buffer.from(value as Buffer);
  } catch (error) {
    signal.throwIfAborted(); // Then the input is in pieces because of us.
    throw error;
  }
}
