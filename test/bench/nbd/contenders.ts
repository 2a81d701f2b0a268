/** Who takes part: volsnap, and the peers that are installed. Each serves a volume of its own, in a folder of its own. */
import { execFile, spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { ServerProcess } from './server-process.js';

export const ROOT = resolve(import.meta.dirname, '../../..');
export const PROGRAM = process.env.VOLSNAP_PROGRAM ?? join(ROOT, 'dist/cli/main.js');

/** The image that a contender finds in its folder. */
export const IMAGE = 'volume.img';
const SOCKET = 'socket';

export interface Serving {
  readonly server: ServerProcess;
  /** URIs of the export that is written to, and of what is read as a snapshot. */
  readonly live: string;
  readonly snapshot: string;
}

export interface Contender {
  readonly name: string;
  /** What it keeps of the old data, after a power cut. */
  readonly keeps: string;
  /** Programs that it needs, besides Node.js. */
  readonly programs: readonly string[];
  /** Serves the image in `folder`, just after a snapshot where it has any. `size` in bytes. */
  start(folder: string, size: number): Promise<Serving>;
}

export const Name = {
  writeback: 'volsnap, writeback',
  ordered: 'volsnap, ordered',
  plain: 'plain file, server of volsnap',
  copyBeforeWrite: 'qemu copy-before-write',
  overlay: 'qemu qcow2 overlay',
  qemuRaw: 'qemu raw file',
  nbdkit: 'nbdkit file',
  nbdkitCow: 'nbdkit file + cow',
  floor: 'floor',
} as const;

export const CONTENDERS: readonly Contender[] = [
  volsnap(Name.writeback, 'writeback', 'what was flushed'),
  volsnap(Name.ordered, 'ordered', 'everything'),
  {
    name: Name.plain,
    keeps: 'no snapshots',
    programs: [],
    start: (folder) =>
      serving(folder, '', [
        process.execPath,
        ...nodeOptions(),
        join(import.meta.dirname, 'plain-server.mjs'),
        IMAGE,
        SOCKET,
      ]),
  },
  {
    name: Name.copyBeforeWrite,
    keeps: 'nothing promised: copies are never flushed',
    programs: ['qemu-storage-daemon', 'qemu-img'],
    start: async (folder, size) => {
      await run(folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', 'copies.qcow2', `${size}`);
      return qemu(folder, [
        'driver=file,node-name=volume,filename=volume.img',
        'driver=file,node-name=copies-file,filename=copies.qcow2',
        'driver=qcow2,node-name=copies,file=copies-file',
        'driver=copy-before-write,node-name=live,file=volume,target=copies',
      ]);
    },
  },
  {
    name: Name.overlay,
    keeps: 'redirects, copies nothing; the image itself becomes stale',
    programs: ['qemu-storage-daemon', 'qemu-img'],
    start: async (folder) => {
      await run(
        folder,
        'qemu-img',
        ...['create', '-q', '-f', 'qcow2', '-b', IMAGE, '-F', 'raw', 'overlay.qcow2'],
      );
      return qemu(folder, [
        'driver=file,node-name=file,filename=overlay.qcow2',
        'driver=qcow2,node-name=live,file=file',
      ]);
    },
  },
  {
    name: Name.qemuRaw,
    keeps: 'no snapshots',
    programs: ['qemu-storage-daemon'],
    start: (folder) =>
      qemu(folder, ['driver=file,node-name=file,filename=volume.img', 'driver=raw,node-name=live,file=file']),
  },
  {
    name: Name.nbdkit,
    keeps: 'no snapshots',
    programs: ['nbdkit'],
    start: (folder) => serving(folder, 'live', ['nbdkit', '-f', '-U', SOCKET, 'file', IMAGE]),
  },
  {
    name: Name.nbdkitCow,
    keeps: 'nothing: a temporary overlay, flushes ignored',
    programs: ['nbdkit'],
    start: (folder) => serving(folder, 'live', ['nbdkit', '-f', '-U', SOCKET, '--filter=cow', 'file', IMAGE]),
  },
];

/** Can it run here? */
export const isInstalled = ({ programs }: Contender): boolean =>
  programs.every((program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0);

/** Options for Node.js where it serves, such as `--cpu-prof`. */
const nodeOptions = (): string[] =>
  (process.env.VOLSNAP_BENCH_NODE_OPTIONS ?? '').split(' ').filter((word) => word !== '');

function volsnap(name: string, mode: string, keeps: string): Contender {
  return {
    name,
    keeps,
    programs: [],
    async start(folder) {
      await run(folder, process.execPath, PROGRAM, 'init', IMAGE);
      const id = (await run(folder, process.execPath, PROGRAM, 'create', IMAGE)).trim();
      const command = [PROGRAM, 'serve', IMAGE, '--socket', SOCKET, '--write-mode', mode];
      return serving(folder, 'live', [process.execPath, ...nodeOptions(), ...command], `snapshot/${id}`);
    },
  };
}

function qemu(folder: string, nodes: readonly string[]): Promise<Serving> {
  return serving(folder, 'live', [
    'qemu-storage-daemon',
    ...nodes.flatMap((node) => ['--blockdev', node]),
    ...['--nbd-server', `addr.type=unix,addr.path=${SOCKET}`],
    ...['--export', 'type=nbd,id=live,node-name=live,name=live,writable=on'],
  ]);
}

async function serving(
  folder: string,
  live: string,
  command: readonly string[],
  snapshot = live,
): Promise<Serving> {
  const server = await ServerProcess.start(folder, join(folder, SOCKET), command);
  return {
    server,
    live: server.uri(live),
    snapshot: server.uri(snapshot),
  };
}

async function run(folder: string, program: string, ...given: readonly string[]): Promise<string> {
  return (await promisify(execFile)(program, given, { cwd: folder, timeout: 60_000 })).stdout;
}
