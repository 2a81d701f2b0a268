/** Files with what TLS needs, under the names that QEMU's and GnuTLS' tools give them. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError, type NbdTls } from '../index.js';
import { explained } from './failure.js';

const readText = (path: string): Promise<string> => explained(`read ${path}`, () => readFile(path, 'utf8'));

/** `ca-cert.pem`, `server-cert.pem` and `server-key.pem` of a folder. @throws DeviceError */
export async function readCertificates(folder: string): Promise<NbdTls> {
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'server-cert.pem', 'server-key.pem'].map((name) => readText(join(folder, name))),
  );
  for (const [name, pem] of [
    ['ca-cert.pem', ca],
    ['server-cert.pem', cert],
  ] as const)
    checkDates(join(folder, name), pem ?? '');
  return { kind: 'certificates', ca: ca ?? '', cert: cert ?? '', key: key ?? '' };
}

/** No client would accept it. @throws InvalidArgumentError */
function checkDates(path: string, pem: string): void {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return; // Whoever uses it says what is wrong.
  }
  const { validFrom, validTo } = certificate;
  if (Date.parse(validTo) < Date.now())
    throw new InvalidArgumentError(`${path} was valid until ${validTo}: make a new certificate`);
  if (Date.parse(validFrom) > Date.now())
    throw new InvalidArgumentError(
      `${path} is not valid before ${validFrom}: look at the clock of this machine`,
    );
}

/** Lines of `USER:KEY`, the key in hexadecimal, as `psktool` writes them. @throws InvalidArgumentError, DeviceError */
export async function readKeys(path: string): Promise<NbdTls> {
  const keys = new Map<string, Uint8Array>();
  const lines = (await readText(path)).split('\n');
  for (const [index, line] of lines.entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const { user = '', key = '' } = /^(?<user>[^:]+):(?<key>(?:[\da-f]{2})+)\s*$/i.exec(line)?.groups ?? {};
    if (user === '') {
      throw new InvalidArgumentError(
        `${path}, line ${index + 1}: USER:KEY is expected, the key in hexadecimal`,
      );
    }
    keys.set(user, Buffer.from(key, 'hex'));
  }
  if (keys.size === 0) throw new InvalidArgumentError(`${path} holds no key; make one with: psktool`);
  return { kind: 'psk', keys };
}
