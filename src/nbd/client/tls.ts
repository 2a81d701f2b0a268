/**
 * TLS as the parameters of a URI ask for it, in the conventions of libnbd and libvirt: a folder with `ca-cert.pem`,
 * `client-cert.pem` and `client-key.pem`; or a file of pre-shared keys as `psktool` writes it.
 */
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { codeOf, systemError } from '../../device/system-error.js';
import { InvalidArgumentError } from '../../errors.js';
import type { TlsWishes } from './uri.js';

/** Read anew for every connection, because certificates are renewed while a device is open. */
export async function tlsOptions(wishes: TlsWishes): Promise<ConnectionOptions> {
  const { hostname } = wishes;
  const server: ConnectionOptions = {
    // Whom the certificate has to be for; an address may not be sent as a name.
    host: hostname,
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    rejectUnauthorized: wishes.verifyPeer,
  };
  return wishes.pskFile === undefined
    ? { ...server, minVersion: 'TLSv1.2', ...(await certificateOptions(wishes.certificates)) }
    : { ...server, ...(await keyOptions(wishes.pskFile, wishes.user ?? userInfo().username)) };
}

async function certificateOptions(folder: string | undefined): Promise<ConnectionOptions> {
  if (folder === undefined) return {};
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((name) => fileIfThere(join(folder, name))),
  );
  if (ca === undefined) {
    throw new InvalidArgumentError(
      `there is no ca-cert.pem in ${folder}, the certificate that vouches for the server`,
    );
  }
  if ((cert === undefined) !== (key === undefined)) {
    throw new InvalidArgumentError(
      `in ${folder} is only one of client-cert.pem and client-key.pem: one is of no use without the other`,
    );
  }
  return { ca, ...(cert === undefined || key === undefined ? {} : { cert, key }) };
}

async function fileIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw systemError(`read ${path}`, error);
  }
}

async function keyOptions(file: string, user: string): Promise<ConnectionOptions> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw systemError(`read the keys in ${file}`, error);
  });
  const line = text.split('\n').find((each) => each.startsWith(`${user}:`));
  const digits = line?.slice(user.length + 1).trim();
  if (digits === undefined) {
    throw new InvalidArgumentError(`${file} has no key for ${user}: name another user, nbds://user@host/…`);
  }
  if (!/^(?:[0-9a-f]{2})+$/i.test(digits)) {
    throw new InvalidArgumentError(`${file}: the key of ${user} is not an even number of hexadecimal digits`);
  }
  const psk = Buffer.from(digits, 'hex');
  return {
    pskCallback: () => ({ psk, identity: user }),
    // OpenSSL leaves these out unless asked. Both sides prove that they have the key, so there is no certificate to check.
    ciphers: 'ECDHE-PSK-CHACHA20-POLY1305:ECDHE+PSK:DHE+PSK:PSK:!NULL',
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    checkServerIdentity: () => undefined,
  };
}
