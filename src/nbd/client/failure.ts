/** How a connection ends before its time, and how a server's refusals are told. */
import { DeviceError, InvalidArgumentError, NotFoundError, type UnsupportedError } from '../../errors.js';
import { ErrorValue, OptionReply } from '../wire/constants.js';
import { decodeString } from '../wire/option.js';

/**
 * - `lost`: the server closed the connection, or the network broke. Requests may be sent again on another.
 * - `abandoned`: we gave it up, because the server took too long over some request. What it was asked may yet happen.
 * - `late`: the same, for that request itself.
 * - `malformed`: what came is not NBD. There is no point in asking again.
 */
export type EndKind = 'lost' | 'abandoned' | 'late' | 'malformed';

/** Why a connection is over. Stays inside this folder: callers get a `DeviceError`. */
export class ConnectionEnd extends Error {
  override readonly name = 'ConnectionEnd';

  constructor(
    readonly kind: EndKind,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export const lost = (message: string, cause?: unknown): ConnectionEnd =>
  new ConnectionEnd('lost', message, { cause });
export const malformed = (message: string): ConnectionEnd =>
  new ConnectionEnd('malformed', `the server does not keep to the NBD protocol: ${message}`);

/** What a server answers to an option that it refuses. */
export class OptionRefusal extends Error {
  override readonly name = 'OptionRefusal';

  constructor(
    readonly option: number,
    readonly type: number,
    /** What the server says, for people; may be empty. */
    readonly explanation: string,
  ) {
    super(`${nameOf(OptionReply, type)}${explanation === '' ? '' : `: ${explanation}`}`);
  }
}

/** A request that the server answered with an error. */
export interface ServerError {
  readonly value: number;
  readonly message: string;
}

const CODES: Readonly<Record<number, readonly [code: string, words: string]>> = {
  [ErrorValue.perm]: ['EPERM', 'not permitted'],
  [ErrorValue.io]: ['EIO', 'input/output error'],
  [ErrorValue.nomem]: ['ENOMEM', 'out of memory'],
  [ErrorValue.inval]: ['EINVAL', 'invalid request'],
  [ErrorValue.nospc]: ['ENOSPC', 'no space left'],
  [ErrorValue.overflow]: ['EOVERFLOW', 'request too large'],
  [ErrorValue.notsup]: ['ENOTSUP', 'not supported'],
  [ErrorValue.shutdown]: ['ESHUTDOWN', 'the server is shutting down'],
};

/** @param doing completes "cannot …" */
export function deviceError(doing: string, { value, message }: ServerError): DeviceError {
  const [code, words] = CODES[value] ?? [`NBD ${value}`, 'an error that NBD does not define'];
  const said = message === '' ? '' : `, "${message}"`;
  // With a `code` as errors of the system have it, so that a full disk is known as one.
  const cause = Object.assign(new Error(`${code}: ${words}${said}`), { code });
  return new DeviceError(`cannot ${doing}: the server answers ${code} (${words}${said})`, { cause });
}

/** Text of a server as it may be shown: on one line, without control characters, not long. */
export function shown(bytes: Uint8Array, most = 300): string {
  const text = decodeString(bytes) ?? Buffer.from(bytes).toString('latin1');
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return clean.length > most ? `${clean.slice(0, most)}…` : clean;
}

/** Why an export cannot be used, with what can be done about it. */
export function refusedExport(
  name: string,
  server: string,
  refusal: OptionRefusal,
  others: readonly string[] | undefined,
): NotFoundError | UnsupportedError | InvalidArgumentError | DeviceError {
  const options = { cause: refusal };
  switch (refusal.type) {
    case OptionReply.unknown:
      // As nbdkit answers where what lies behind the export cannot be opened.
      if (others?.includes(name))
        return new DeviceError(
          `${server} lists the export ${JSON.stringify(name)}, but cannot open it${said(refusal)}; its own messages tell why`,
          options,
        );
      return new NotFoundError(
        `${server} has no export ${JSON.stringify(name)}${listOf(others)}${said(refusal)}`,
        options,
      );
    case OptionReply.tlsRequired:
      return new InvalidArgumentError(
        `${server} wants TLS: use nbds:// instead of nbd:// (or nbds+unix://), with tls-certificates or tls-psk-file`,
        options,
      );
    case OptionReply.shutdown:
      return new DeviceError(`${server} is shutting down${said(refusal)}`, options);
    default:
      return new DeviceError(
        `${server} refuses the export ${JSON.stringify(name)}: ${refusal.message}`,
        options,
      );
  }
}

const said = ({ explanation }: OptionRefusal): string => (explanation === '' ? '' : ` (${explanation})`);

function listOf(names: readonly string[] | undefined): string {
  if (names === undefined) return '';
  if (names.length === 0) return '; it lists none';
  return `; it has ${names.map((name) => (name === '' ? 'the default one (no name)' : JSON.stringify(name))).join(', ')}`;
}

/** Name of a number of the protocol, for messages. */
export function nameOf(numbers: Readonly<Record<string, number>>, value: number): string {
  const found = Object.entries(numbers).find(([, number]) => number === value);
  return found?.[0] ?? `number ${value}`;
}
