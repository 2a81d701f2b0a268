/** Where a command serves NBD, and who may connect: options that such commands share. */
import { once } from 'node:events';
import { type Command, Option } from 'commander';
import type { NbdTls } from '../index.js';
import { type Address, parseAddress } from './address.js';
import { isAbort } from './failure.js';
import { parsePath } from './places.js';
import type { Session } from './session.js';

export interface ListeningOptions {
  readonly socket?: string;
  readonly listen?: Address;
  readonly tlsCertificates?: string;
  readonly tlsPsk?: string;
  readonly insecure?: boolean;
}

/** @param socketPlace where the Unix socket is unless it is named */
export const withListening = (command: Command, socketPlace: string): Command =>
  command
    .addOption(
      new Option('--socket <PATH>', `Unix socket to serve on (default: ${socketPlace})`)
        .conflicts('listen')
        .argParser(parsePath),
    )
    .option('--listen <HOST:PORT>', 'TCP address to serve on; needs TLS, or --insecure', parseAddress)
    .addOption(
      new Option(
        '--tls-certificates <DIR>',
        'clients need a certificate: folder with ca-cert.pem, server-cert.pem, server-key.pem',
      )
        .conflicts('tlsPsk')
        .argParser(parsePath),
    )
    .option('--tls-psk <FILE>', 'clients need a key: file with lines of USER:KEY', parsePath)
    .option('--insecure', 'allow TCP without TLS, on loopback only');

/** @throws InvalidArgumentError, DeviceError */
export async function tlsOf({ tlsCertificates, tlsPsk }: ListeningOptions): Promise<NbdTls | undefined> {
  // Only now: other commands need none of it.
  const { readCertificates, readKeys } = await import('./tls-files.js');
  if (tlsCertificates !== undefined) return readCertificates(tlsCertificates);
  return tlsPsk === undefined ? undefined : readKeys(tlsPsk);
}

/**
 * Says by `tell` that clients can connect, and waits for the signal that ends the serving. Who has read that may end it at once: a
 * signal that comes before all of it is known to be out is as good an end as a later one.
 */
export async function untilSignal({ signal }: Session, tell: () => Promise<void>): Promise<void> {
  try {
    await tell();
  } catch (error) {
    if (!signal.aborted || !isAbort(error)) throw error;
  }
  if (!signal.aborted) await once(signal, 'abort');
}
