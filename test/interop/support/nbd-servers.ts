/** qemu-nbd and nbdkit, each in a folder of its own that goes away with the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { runWell } from './writer-tools.ts';

/** Milliseconds for a server to listen. */
const PATIENCE = 20_000;

/** A folder that goes when the test finishes. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'volsnap-nbd-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A process that serves NBD at `socket`. */
export class ServerProcess {
  readonly socket: string;
  readonly #child: ChildProcess;
  #said = '';

  private constructor(socket: string, child: ChildProcess) {
    this.socket = socket;
    this.#child = child;
    child.stderr?.on('data', (data) => {
      this.#said += data;
    });
  }

  /** Resolves when it listens; killed when the test finishes. */
  static async start(socket: string, program: string, args: readonly string[]): Promise<ServerProcess> {
    // Left behind by one that was killed, it would look as if the new one listened.
    rmSync(socket, { force: true });
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const server = new ServerProcess(socket, child);
    onTestFinished(() => server.kill());
    for (const end = Date.now() + PATIENCE; !(await listens(socket)); await pause(10)) {
      if (child.exitCode !== null || Date.now() > end)
        throw new Error(`${program} ${args.join(' ')} does not listen: ${server.#said}`);
    }
    return server;
  }

  uri(name = '', scheme = 'nbd+unix', parameters = ''): string {
    return `${scheme}:///${name}?socket=${this.socket}${parameters}`;
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** nbdkit in the foreground. @param args what comes before the plugin, the plugin, and what comes after */
export const nbdkit = (folder: string, ...args: readonly string[]): Promise<ServerProcess> => {
  const socket = join(folder, 'nbdkit.sock');
  return ServerProcess.start(socket, 'nbdkit', ['--foreground', '--exit-with-parent', '-U', socket, ...args]);
};

/** qemu-nbd, which stays for any number of clients. */
export const qemuNbd = (folder: string, ...args: readonly string[]): Promise<ServerProcess> => {
  const socket = join(folder, 'qemu.sock');
  return ServerProcess.start(socket, 'qemu-nbd', ['-t', '-e', '8', '-k', socket, ...args]);
};

/** An image of that format with this content. @returns its path */
export async function image(folder: string, format: string, content: Uint8Array): Promise<string> {
  const raw = join(folder, 'content.raw');
  await writeFile(raw, content);
  if (format === 'raw') return raw;
  const path = join(folder, `image.${format}`);
  await runWell('qemu-img', 'convert', '-f', 'raw', '-O', format, raw, path);
  return path;
}

/** Certificates of an authority, a server and a client, named as libvirt and libnbd want them. */
export async function makeCertificates(folder: string): Promise<void> {
  const at = (name: string) => join(folder, name);
  const newKey = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  await runWell(
    'openssl',
    'req',
    '-x509',
    ...newKey,
    '-subj',
    '/CN=test authority',
    '-keyout',
    at('ca-key.pem'),
    '-out',
    at('ca-cert.pem'),
  );
  await writeFile(at('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  for (const who of ['server', 'client']) {
    const [key, request] = [at(`${who}-key.pem`), at(`${who}.csr`)];
    await runWell(
      'openssl',
      'req',
      ...newKey.slice(0, 3),
      '-subj',
      `/CN=${who}`,
      '-keyout',
      key,
      '-out',
      request,
    );
    await runWell(
      'openssl',
      'x509',
      '-req',
      '-days',
      '2',
      '-in',
      request,
      '-CA',
      at('ca-cert.pem'),
      '-CAkey',
      at('ca-key.pem'),
      '-CAcreateserial',
      '-extfile',
      at('names'),
      '-out',
      at(`${who}-cert.pem`),
    );
  }
}
