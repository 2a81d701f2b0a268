/** TLS over a connection that began in the clear, as `NBD_OPT_STARTTLS` wants it. */
import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createSecureContext, createServer, type TlsOptions } from 'node:tls';
import { DeviceError, InvalidArgumentError } from '../../errors.js';

/** Clients prove who they are by a certificate that `ca` signed, or by a key that both sides know. */
export type NbdTls =
  | {
      readonly kind: 'certificates';
      /** PEM. */
      readonly ca: string | Buffer;
      readonly cert: string | Buffer;
      readonly key: string | Buffer;
    }
  | {
      readonly kind: 'psk';
      /** Keys by user name. */
      readonly keys: ReadonlyMap<string, Uint8Array>;
    };

/** Suites with a key known beforehand; those with forward secrecy first. */
const PSK_CIPHERS = [
  'ECDHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'PSK-AES256-GCM-SHA384',
  'PSK-AES128-GCM-SHA256',
].join(':');

export class TlsUpgrade {
  readonly #options: TlsOptions;

  /** @throws InvalidArgumentError if the certificates or the key are none, or do not belong together */
  constructor(tls: NbdTls) {
    this.#options =
      tls.kind === 'certificates'
        ? {
            ca: tls.ca,
            cert: tls.cert,
            key: tls.key,
            requestCert: true,
            rejectUnauthorized: true,
            minVersion: 'TLSv1.2',
          }
        : {
            // Node's keys known beforehand belong to TLS 1.2.
            minVersion: 'TLSv1.2',
            maxVersion: 'TLSv1.2',
            ciphers: PSK_CIPHERS,
            pskCallback: (_socket, identity) => tls.keys.get(identity) ?? null,
          };
    try {
      // Without an authority Node.js would trust those that browsers trust.
      if (tls.kind === 'certificates') new X509Certificate(tls.ca);
      // Made anew for each client, but only here somebody hears that it cannot be made.
      createSecureContext(this.#options);
    } catch (cause) {
      throw new InvalidArgumentError(
        `the certificates or the key cannot be used for TLS (${cause instanceof Error ? cause.message : cause}): give PEM, and the key that belongs to the server's certificate`,
        { cause },
      );
    }
  }

  /**
   * Resolves once the client has proved itself.
   * @param limitMs milliseconds for the handshake
   * @throws DeviceError if it does not; then the socket is destroyed
   */
  upgrade(socket: Socket, limitMs: number): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      const fail = (why: string, cause?: unknown) => {
        socket.destroy();
        reject(new DeviceError(`TLS failed: ${why}`, { cause }));
      };
      // A server of its own that never listens: it checks the client's certificate as every TLS server of Node does.
      const server = createServer({ ...this.#options, handshakeTimeout: limitMs });
      server.once('secureConnection', resolve);
      server.once('tlsClientError', (error) => fail(error.message, error));
      socket.once('close', () => fail('the client went away'));
      server.emit('connection', socket);
    });
  }
}
