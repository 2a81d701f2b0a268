/** TLS over a connection that began in the clear, as `NBD_OPT_STARTTLS` wants it. */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer, type TlsOptions } from 'node:tls';
import { DeviceError } from '../../errors.js';

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
