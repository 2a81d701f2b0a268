/** Reaching the process that serves a volume. */
import { DeviceError } from '../errors.js';
import { connectTo } from '../nbd/server/socket-file.js';
import { controlSocketsOf, identityOf, type VolumePlace } from './control-place.js';
import { type Greeting, Method, type VolumeState } from './control-protocol.js';
import { RemoteVolume } from './remote-volume.js';
import { type Answer, RpcClient } from './rpc/client.js';
import { ClosingError, PeerGoneError } from './rpc/errors.js';

/** Received at once from the kernel, bytes. */
const RECEIVE_SIZE = 1024 * 1024;
/** How long an owner that is closing the volume is waited for, milliseconds. */
const CLOSING_PATIENCE_MS = 30_000;
/** How long an owner may take to answer a greeting, which takes no device to answer, milliseconds. */
const GREETING_PATIENCE_MS = 60_000;
/** What `connect` says when nobody listens, nothing is there, or it is somebody else's. */
const NOBODY = new Set(['ECONNREFUSED', 'ENOENT', 'EACCES', 'EPERM', 'ENOTDIR', 'ENOTSOCK', 'EPROTOTYPE']);

/**
 * Reaches the process that serves the volume. One that is closing it is waited for.
 * @returns `undefined` if no process does
 * @throws InUseError if the store belongs to another volume that is served, DeviceError, also if the process does not answer
 */
export async function connectToOwner(
  place: VolumePlace,
  signal?: AbortSignal,
): Promise<RemoteVolume | undefined> {
  const identity = await identityOf(place.volume);
  for (const path of await controlSocketsOf(place)) {
    const volume = await connectAt(path, place.volume, { identity }, signal);
    if (volume !== undefined) return volume;
  }
  return undefined;
}

async function connectAt(
  path: string,
  name: string,
  greeting: Greeting,
  signal: AbortSignal | undefined,
): Promise<RemoteVolume | undefined> {
  // What happens before the greeting is answered is in the answer.
  let onEvent: (event: unknown) => void = () => undefined;
  const client = await open(path, (event) => onEvent(event));
  if (client === undefined) return undefined;
  try {
    const { value } = await greeted(client, greeting, path, signal);
    const volume = RemoteVolume.over(client, name, value as VolumeState);
    onEvent = (event) => volume.tell(event);
    return volume;
  } catch (error) {
    if (error instanceof ClosingError) await within(CLOSING_PATIENCE_MS, client.ended);
    await client.close();
    // It was on its way out: the volume has another owner now, or none.
    if (error instanceof ClosingError || error instanceof PeerGoneError) return undefined;
    throw error;
  }
}

/** A process that was stopped, or hangs, must not keep others waiting for ever. */
async function greeted(
  client: RpcClient,
  greeting: Greeting,
  path: string,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const late = new AbortController();
  const timer = setTimeout(() => {
    const seconds = GREETING_PATIENCE_MS / 1000;
    const why = `the process that serves the volume (at ${path}) has not answered for ${seconds} seconds: it was stopped, or hangs`;
    late.abort(new DeviceError(why));
  }, GREETING_PATIENCE_MS);
  const signals = signal === undefined ? [late.signal] : [signal, late.signal];
  try {
    return await client.request(Method.hello, greeting, { signal: AbortSignal.any(signals) });
  } finally {
    clearTimeout(timer);
  }
}

async function open(path: string, onEvent: (event: unknown) => void): Promise<RpcClient | undefined> {
  let client: RpcClient | undefined;
  const incoming = {
    buffer: Buffer.allocUnsafeSlow(RECEIVE_SIZE),
    callback: (count: number, buffer: Uint8Array) => {
      client?.receive(buffer.subarray(0, count));
      return true;
    },
  };
  try {
    const socket = await connectTo(path, incoming);
    client = new RpcClient(socket, `the process that serves the volume (at ${path})`, onEvent);
    return client;
  } catch (error) {
    if (error instanceof Error && 'code' in error && NOBODY.has(String(error.code))) return undefined;
    throw new DeviceError(`cannot reach the process that serves the volume at ${path}`, { cause: error });
  }
}

async function within(milliseconds: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await Promise.race([promise, limit]);
  clearTimeout(timer);
}
