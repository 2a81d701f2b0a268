/** Servers of other projects, as programs of the system. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Place, Target } from '../case.ts';
import type { Psk } from '../raw-connection.ts';
import { makeImages } from './images.ts';
import { ServerProcess } from './process.ts';

const run = promisify(execFile);

/** Starts a server with its images in `folder`, which is empty. */
export type StartServer = (folder: string) => Promise<Target>;

const NAME = 'disk';

async function versionOf(program: string): Promise<string> {
  const { stdout } = await run(program, ['--version']);
  return /\d+\.\d+\.\d+/.exec(stdout)?.[0] ?? stdout.trim();
}

async function makePsk(folder: string): Promise<{ folder: string; file: string; psk: Psk }> {
  const keys = join(folder, 'keys');
  await mkdir(keys);
  const psk = { identity: 'conformance', key: randomBytes(32) };
  const file = join(keys, 'keys.psk');
  await writeFile(file, `${psk.identity}:${psk.key.toString('hex')}\n`);
  await chmod(file, 0o600);
  return { folder: keys, file, psk };
}

interface Launch {
  readonly socket: string;
  readonly program: string;
  readonly given: readonly string[];
}

async function launchAll(
  name: string,
  folder: string,
  launches: Readonly<Record<'writable' | 'readOnly' | 'large' | 'tls', Launch>>,
  psk: Psk,
): Promise<Target> {
  const processes: ServerProcess[] = [];
  const stop = async () => {
    await Promise.all(processes.map((one) => one.stop()));
  };
  try {
    for (const { program, given, socket } of Object.values(launches))
      processes.push(await ServerProcess.start(program, given, [socket]));
  } catch (error) {
    await stop();
    throw new Error(`${name} cannot be started in ${folder}`, { cause: error });
  }
  const place = ({ socket }: Launch): Place => ({ address: { path: socket }, exportName: NAME });
  return {
    name,
    version: await versionOf(launches.writable.program),
    writable: place(launches.writable),
    readOnly: place(launches.readOnly),
    large: place(launches.large),
    tls: { ...place(launches.tls), psk },
    stop,
  };
}

const SHARED = '200';

export const startQemuNbd: StartServer = async (folder) => {
  const images = await makeImages(folder);
  const keys = await makePsk(folder);
  const launch = (name: string, image: string, ...more: string[]): Launch => {
    const socket = join(folder, `${name}.sock`);
    const common = ['--persistent', `--shared=${SHARED}`, '--format=raw', '--discard=unmap', '-x', NAME];
    return { socket, program: 'qemu-nbd', given: [...common, '-k', socket, ...more, image] };
  };
  return launchAll(
    'qemu-nbd',
    folder,
    {
      writable: launch('writable', images.disk),
      readOnly: launch('read-only', images.still, '--read-only'),
      large: launch('large', images.large),
      tls: launch(
        'tls',
        images.still,
        '--object',
        `tls-creds-psk,id=tls0,endpoint=server,dir=${keys.folder}`,
        '--tls-creds=tls0',
      ),
    },
    keys.psk,
  );
};

export const startStorageDaemon: StartServer = async (folder) => {
  const images = await makeImages(folder);
  const keys = await makePsk(folder);
  const launch = (name: string, image: string, writable: boolean, tls: boolean): Launch => {
    const socket = join(folder, `${name}.sock`);
    const readOnly = writable ? 'off' : 'on';
    return {
      socket,
      program: 'qemu-storage-daemon',
      given: [
        '--blockdev',
        `file,node-name=file,filename=${image},discard=unmap,read-only=${readOnly}`,
        ...(tls ? ['--object', `tls-creds-psk,id=tls0,endpoint=server,dir=${keys.folder}`] : []),
        '--nbd-server',
        `addr.type=unix,addr.path=${socket},max-connections=${SHARED}${tls ? ',tls-creds=tls0' : ''}`,
        '--export',
        `nbd,id=export,node-name=file,name=${NAME},writable=${writable ? 'on' : 'off'}`,
      ],
    };
  };
  return launchAll(
    'qemu-storage-daemon',
    folder,
    {
      writable: launch('writable', images.disk, true, false),
      readOnly: launch('read-only', images.still, false, false),
      large: launch('large', images.large, true, false),
      tls: launch('tls', images.still, true, true),
    },
    keys.psk,
  );
};

export const startNbdkit: StartServer = async (folder) => {
  const images = await makeImages(folder);
  const keys = await makePsk(folder);
  const launch = (name: string, image: string, ...more: string[]): Launch => {
    const socket = join(folder, `${name}.sock`);
    // The file plugin takes any export name; the filter makes it one name, and the default.
    const strict = [
      `exportname=${NAME}`,
      'exportname-list=explicit',
      'exportname-strict=true',
      `default-export=${NAME}`,
    ];
    return {
      socket,
      program: 'nbdkit',
      given: ['-f', '-U', socket, ...more, '--filter=exportname', 'file', image, ...strict],
    };
  };
  return launchAll(
    'nbdkit',
    folder,
    {
      writable: launch('writable', images.disk),
      readOnly: launch('read-only', images.still, '-r'),
      large: launch('large', images.large),
      tls: launch('tls', images.still, '--tls=require', `--tls-psk=${keys.file}`),
    },
    keys.psk,
  );
};
