/**
 * Serves volumes to other processes: their bytes and those of their snapshots over NBD, and what the commands of
 * `volsnap` ask through a control socket.
 *
 *     await using volume = await Volume.open(await FileDevice.open('disk.img', { writable: true }));
 *     await using server = await VolumeServer.start([volume]);
 *     console.log(server.uris[0]);
 */
import { access, constants } from 'node:fs/promises';
import { basename } from 'node:path';
import { checkServedVolume } from '../check/served.js';
import { InvalidArgumentError } from '../errors.js';
import type { NbdLimits } from '../nbd/server/limits.js';
import { type NbdAddress, NbdServer } from '../nbd/server/server.js';
import { checkFree, SOCKET_PATH_MAX } from '../nbd/server/socket-file.js';
import type { NbdTls } from '../nbd/server/tls.js';
import type { Volume } from '../volume/volume.js';
import { identityOf, makePlaceInMemory, placeInStore, type SocketPlace } from './control-place.js';
import type { ServingState } from './control-protocol.js';
import { ControlServer } from './control-server.js';
import type { MetricsEndpoint } from './metrics-endpoint.js';
import { type ServedVolume, VolumeExports } from './volume-exports.js';

export interface VolumeServerOptions {
  /** Path of the Unix socket for NBD clients; default: `nbd.sock` in the first volume's store. */
  readonly socket?: string;
  /** A TCP address instead. Without TLS only on loopback, and `insecure` has to say so. */
  readonly listen?: { readonly host: string; readonly port: number; readonly insecure?: boolean };
  /** What NBD clients may take; default: `DEFAULT_LIMITS`. */
  readonly limits?: Partial<NbdLimits>;
  /** What NBD clients have to prove. */
  readonly tls?: NbdTls;
  /** NBD clients may not write; default: they may if the volume can be written. */
  readonly readOnly?: boolean;
  /** Whether other processes may use the volumes through a control socket; default: yes. */
  readonly control?: boolean;
  /** TCP address where figures can be had over HTTP, in the OpenMetrics form; default: nowhere. */
  readonly metrics?: { readonly host: string; readonly port: number };
  /** Told of errors that are not a client's fault; default: nobody. */
  readonly onError?: (error: unknown) => void;
}

interface Owned {
  readonly volume: Volume;
  readonly control: ControlServer;
}

export class VolumeServer {
  readonly exports: VolumeExports;
  readonly nbd: NbdServer;
  readonly volumes: readonly ServedVolume[];
  readonly #options: VolumeServerOptions;
  readonly #onError: (error: unknown) => void;
  readonly #since = performance.now();
  #uris: readonly string[] = [];
  readonly #owned: Owned[] = [];
  #metrics: MetricsEndpoint | undefined;
  #closed: Promise<void> | undefined;

  private constructor(volumes: readonly ServedVolume[], options: VolumeServerOptions) {
    const { limits, tls, onError = () => undefined } = options;
    this.#options = options;
    this.#onError = onError;
    this.volumes = volumes;
    this.exports = new VolumeExports(volumes, { readOnly: options.readOnly ?? false });
    this.nbd = new NbdServer(this.exports, {
      ...(limits === undefined ? {} : { limits }),
      ...(tls === undefined ? {} : { tls }),
      onError,
    });
  }

  /**
   * Begins to serve volumes, which stay open until their owner closes them after the server. When this resolves,
   * clients can connect.
   * @throws InvalidArgumentError, InUseError (the socket is another server's), DeviceError
   */
  static async start(
    volumes: readonly [Volume, ...Volume[]],
    options: VolumeServerOptions = {},
  ): Promise<VolumeServer> {
    const server = new VolumeServer(named(volumes), options);
    try {
      const places: (SocketPlace | undefined)[] = [];
      for (const volume of volumes) places.push(await placeFor(volume));
      if (options.control !== false) {
        for (const [i, volume] of volumes.entries()) await server.#control(volume, i, places[i]);
      }
      if (options.metrics !== undefined)
        server.#metrics = await metricsAt(server, options.metrics, server.#onError);
      const address = await server.#listen(places[0]);
      server.#uris = server.#urisAt(address);
      return server;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  /** Where NBD clients find each volume. */
  get uris(): readonly string[] {
    return this.#uris;
  }

  /** Where figures can be had. */
  get metricsUrl(): string | undefined {
    return this.#metrics?.url;
  }

  /** What the server does, as clients of the control channel see it. */
  get serving(): ServingState {
    const { live, snapshot } = this.exports.figures;
    const { figures } = this.nbd;
    return {
      pid: process.pid,
      uris: this.#uris,
      forMs: performance.now() - this.#since,
      connections: figures.connections,
      inFlight: figures.inFlight,
      reads: live.reads + snapshot.reads,
      readBytes: live.readBytes + snapshot.readBytes,
      writes: live.writes,
      writtenBytes: live.writtenBytes,
      flushes: figures.requests.flush.requests,
      failures: live.failures + snapshot.failures,
    };
  }

  /** Only a volume that is open for writing has one owner. Others can open a volume that is only read as well. */
  async #control(volume: Volume, index: number, place: SocketPlace | undefined): Promise<void> {
    if (!volume.writable || place === undefined) return;
    // The lock of the volume says as much, where it has one: behind an NBD address it has none.
    await checkFree(place.control, 'use the volume through that one, or end it');
    const control = await ControlServer.listen(place.control, {
      volume,
      identity: await identityOf(volume.name),
      serving: () => ({ ...this.serving, uris: this.#uris.slice(index, index + 1) }),
      siblings: () => this.volumes.flatMap((each) => (each.volume.writable ? each.volume : [])),
      check: (options) => checkServedVolume(volume, options),
      onError: this.#onError,
    });
    this.#owned.push({ volume, control });
  }

  async #listen(place: SocketPlace | undefined): Promise<NbdAddress> {
    const { socket, listen } = this.#options;
    if (listen !== undefined) {
      if (socket !== undefined) throw new InvalidArgumentError('give a socket or an address, not both');
      return this.nbd.listen(listen);
    }
    const path = socket ?? place?.nbd;
    if (path === undefined) throw new InvalidArgumentError('say where to listen: a socket or an address');
    return this.nbd.listen({ path });
  }

  #urisAt(address: NbdAddress): string[] {
    const secure = this.#options.tls === undefined ? 'nbd' : 'nbds';
    const names = this.volumes.length === 1 ? [''] : this.volumes.map(({ name }) => name);
    return names.map((name) => {
      const path = encodeURIComponent(name);
      if ('path' in address) return `${secure}+unix:///${path}?socket=${uriPath(address.path)}`;
      const host = address.host.includes(':') ? `[${address.host}]` : address.host;
      return `${secure}://${host}:${address.port}/${path}`;
    });
  }

  /**
   * Answers what is under way, makes it durable, and ends. May be called repeatedly.
   * @param release closes the volumes, where that is wanted: processes that want them are told to wait until it is done
   */
  close(release: () => Promise<void> = async () => undefined): Promise<void> {
    this.#closed ??= this.#close(release);
    return this.#closed;
  }

  async #close(release: () => Promise<void>): Promise<void> {
    for (const { control } of this.#owned) control.refuse();
    await this.#metrics?.close();
    await this.nbd.close();
    try {
      // What takes long comes before the control socket goes: until then commands can be told to wait.
      await Promise.all(this.#owned.map(({ volume }) => volume.flush()));
    } finally {
      await Promise.all(this.#owned.map(({ control }) => control.withdraw()));
      try {
        await release();
      } finally {
        await Promise.all(this.#owned.map(({ control }) => control.end()));
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Loaded when somebody wants figures: no other command needs the library for them. */
async function metricsAt(
  server: VolumeServer,
  address: { readonly host: string; readonly port: number },
  onError: (error: unknown) => void,
): Promise<MetricsEndpoint> {
  const { MetricsEndpoint } = await import('./metrics-endpoint.js');
  return MetricsEndpoint.listen(server, address, onError);
}

/** @throws InvalidArgumentError if two have the same */
function named(volumes: readonly Volume[]): ServedVolume[] {
  const served = volumes.map((volume) => ({ volume, name: basename(volume.name) }));
  const names = new Set<string>();
  for (const { volume, name } of served) {
    if (names.has(name)) {
      throw new InvalidArgumentError(
        `${volume.name}: another volume is called ${name} too, and exports are named after the file; serve it by a process of its own`,
      );
    }
    names.add(name);
  }
  return served;
}

/** Where the sockets of a volume go, if it has a place in the file system at all. */
async function placeFor({ name, figures }: Volume): Promise<SocketPlace | undefined> {
  const identity = await identityOf(name);
  const store = figures.layout === 'directory' ? await identityOf(figures.storeName) : undefined;
  if (store !== undefined) {
    const place = placeInStore(figures.storeName);
    if (Buffer.byteLength(place.nbd) <= SOCKET_PATH_MAX && (await takesSockets(figures.storeName)))
      return place;
    // Clients of NBD can be given no longer paths; ours find their way. A folder that cannot be written takes no socket at all.
    return { ...(await makePlaceInMemory(identity ?? store)), control: place.control };
  }
  return identity === undefined ? undefined : makePlaceInMemory(identity);
}

/** May this process put something into the folder, and is it on a file system that can be written? */
const takesSockets = (folder: string): Promise<boolean> =>
  access(folder, constants.W_OK).then(
    () => true,
    () => false,
  );

/** Readable where it can be: what a shell and URI parsers leave alone stays. */
const uriPath = (path: string): string => encodeURIComponent(path).replaceAll('%2F', '/');
