/** Network addresses, as people write them. */
import { InvalidArgumentError } from 'commander';

export interface Address {
  readonly host: string;
  readonly port: number;
}

const LOOPBACK = '127.0.0.1';
const ADDRESS = /^(?:(?<host>\[[\da-f:.]+\]|[^:[\]]*):)?(?<port>\d{1,5})$/i;
const PORT_MAX = 65_535;

/** `HOST:PORT`, `[::1]:PORT`; a port alone is on this machine only. @throws InvalidArgumentError of commander */
export function parseAddress(text: string): Address {
  const { host = '', port = '' } = ADDRESS.exec(text.trim())?.groups ?? {};
  if (port === '' || Number(port) > PORT_MAX) {
    throw new InvalidArgumentError('Give HOST:PORT, such as 127.0.0.1:10809 or [::1]:10809.');
  }
  return { host: host.replace(/^\[|\]$/g, '') || LOOPBACK, port: Number(port) };
}
