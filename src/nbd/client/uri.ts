/**
 * Addresses of exports: NBD URIs (doc/uri.md of NetworkBlockDevice/nbd), with the TLS parameters of libnbd.
 *
 *     nbd://host[:port]/export          nbd+unix:///export?socket=PATH
 *     nbds://[user@]host[:port]/export  nbds+unix://[user@]/export?socket=PATH
 *
 * Strict: a parameter that is not known is refused, because a mistyped `tls-…` must not be ignored.
 */
import { InvalidArgumentError, UnsupportedError } from '../../errors.js';
import { STRING_MAX } from '../wire/constants.js';

/** The port that IANA gave to NBD. */
const DEFAULT_PORT = 10_809;

export type NbdPlace =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface TlsWishes {
  /** Folder with `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` for servers that want one. */
  readonly certificates: string | undefined;
  /** File with lines `user:key`, the key in hexadecimal digits. */
  readonly pskFile: string | undefined;
  /** Whose line of that file. */
  readonly user: string | undefined;
  /** The name that the server's certificate has to be for. */
  readonly hostname: string;
  readonly verifyPeer: boolean;
}

export interface NbdUri {
  /** As it was given; what messages call it. */
  readonly uri: string;
  readonly place: NbdPlace;
  /** Empty for the default export. */
  readonly exportName: string;
  /** `undefined` for a connection without TLS. */
  readonly tls: TlsWishes | undefined;
}

/** Does it begin like a URI, of whatever kind? */
export const looksLikeUri = (text: string): boolean => /^[a-z][a-z0-9+.-]*:\/\//i.test(text);

const SCHEMES: Readonly<Record<string, { readonly unix: boolean; readonly tls: boolean }>> = {
  nbd: { unix: false, tls: false },
  nbds: { unix: false, tls: true },
  'nbd+unix': { unix: true, tls: false },
  'nbds+unix': { unix: true, tls: true },
};
const PARAMETERS = new Set([
  'socket',
  'tls-certificates',
  'tls-psk-file',
  'tls-username',
  'tls-hostname',
  'tls-verify-peer',
]);

/**
 * @throws InvalidArgumentError if it is not well formed
 * @throws UnsupportedError if its scheme is not one of the four above
 */
export function parseNbdUri(uri: string): NbdUri {
  const wrong = (why: string): never => {
    throw new InvalidArgumentError(
      `${uri} is not an NBD address: ${why}; one looks like nbd://host:10809/export or nbd+unix:///export?socket=/path`,
    );
  };
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?$/i.exec(uri);
  if (parts === null) return wrong('it has not the form scheme://host/export?parameters');
  const [, scheme = '', authority = '', path = '', query = ''] = parts;
  const kind = SCHEMES[scheme.toLowerCase()];
  if (kind === undefined) {
    throw new UnsupportedError(
      `${uri}: ${scheme} is not a scheme that volsnap knows; there are ${Object.keys(SCHEMES).join(', ')}`,
    );
  }
  const { user, host } = splitAuthority(authority, wrong);
  const parameters = parseQuery(query, wrong);
  const exportName = decode(path.slice(1), 'the name of the export', wrong);
  if (Buffer.byteLength(exportName) > STRING_MAX)
    wrong(`the name of the export is longer than ${STRING_MAX} bytes`);
  const place = kind.unix
    ? unixPlace(host, parameters.get('socket'), wrong)
    : tcpPlace(host, parameters.get('socket'), wrong);
  const tls = tlsWishes(kind.tls, user, place, parameters, wrong);
  return { uri, place, exportName, tls };
}

type Wrong = (why: string) => never;

function splitAuthority(authority: string, wrong: Wrong): { user: string | undefined; host: string } {
  const at = authority.lastIndexOf('@');
  if (at < 0) return { user: undefined, host: authority };
  const user = decode(authority.slice(0, at), 'the user', wrong);
  if (user === '' || user.includes(':')) wrong('before the @ stands a user, without a password');
  return { user, host: authority.slice(at + 1) };
}

function parseQuery(query: string, wrong: Wrong): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const part of query.split('&')) {
    if (part === '') continue;
    const equals = part.indexOf('=');
    if (equals < 0) return wrong(`the parameter ${part} has no value`);
    const name = decode(part.slice(0, equals), 'a parameter', wrong);
    if (!PARAMETERS.has(name))
      wrong(`there is no parameter ${name}, but there are ${[...PARAMETERS].join(', ')}`);
    if (found.has(name)) wrong(`${name} is there twice`);
    const value = decode(part.slice(equals + 1), name, wrong);
    if (value === '') wrong(`${name} is empty`);
    found.set(name, value);
  }
  return found;
}

function decode(text: string, what: string, wrong: Wrong): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    return wrong(`${what} has a % that is not followed by two hexadecimal digits of UTF-8`);
  }
  return decoded.includes('\0') ? wrong(`${what} has a zero byte`) : decoded;
}

function unixPlace(host: string, socket: string | undefined, wrong: Wrong): NbdPlace {
  if (host !== '') wrong(`a Unix socket is on no host, so ${host} must go (three slashes)`);
  return socket === undefined
    ? wrong('it does not say which socket: ?socket=PATH')
    : { kind: 'unix', path: socket };
}

function tcpPlace(authority: string, socket: string | undefined, wrong: Wrong): NbdPlace {
  if (socket !== undefined) wrong('a socket goes with nbd+unix and nbds+unix');
  const parts = /^(?:\[([0-9a-f:.]+(?:%25[^\]]+)?)\]|([^:[\]]+))(?::([0-9]{1,5}))?$/i.exec(authority);
  if (parts === null) {
    return wrong(
      authority === '' ? 'it names no host' : `${authority} is neither host nor host:port, or [IPv6]:port`,
    );
  }
  const [, six, name, port] = parts;
  const number = port === undefined ? DEFAULT_PORT : Number(port);
  if (number < 1 || number > 65_535) wrong(`${port} is not a port`);
  return { kind: 'tcp', host: decode(six ?? name ?? '', 'the host', wrong), port: number };
}

function tlsWishes(
  wanted: boolean,
  user: string | undefined,
  place: NbdPlace,
  parameters: ReadonlyMap<string, string>,
  wrong: Wrong,
): TlsWishes | undefined {
  if (!wanted) {
    const other = [...parameters.keys()].find((name) => name.startsWith('tls-'));
    if (other !== undefined || user !== undefined)
      wrong(`${other ?? 'a user'} goes with nbds and nbds+unix only`);
    return undefined;
  }
  const certificates = parameters.get('tls-certificates');
  const pskFile = parameters.get('tls-psk-file');
  if (certificates !== undefined && pskFile !== undefined)
    wrong('choose one of tls-certificates and tls-psk-file');
  const named = parameters.get('tls-username');
  if (named !== undefined && user !== undefined && named !== user) wrong('it names two users');
  return {
    certificates,
    pskFile,
    user: user ?? named,
    hostname: parameters.get('tls-hostname') ?? (place.kind === 'tcp' ? place.host : 'localhost'),
    verifyPeer: parseBoolean(parameters.get('tls-verify-peer'), wrong),
  };
}

function parseBoolean(text: string | undefined, wrong: Wrong): boolean {
  if (text === undefined || /^(1|true|yes|on)$/i.test(text)) return true;
  return /^(0|false|no|off)$/i.test(text) ? false : wrong(`tls-verify-peer is true or false, not ${text}`);
}

/** The same server, without the export: for messages. */
export const serverOf = ({ place }: NbdUri): string =>
  place.kind === 'unix' ? place.path : `${place.host}:${place.port}`;
