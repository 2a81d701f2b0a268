/** `GET /metrics` over HTTP, for Prometheus and its like. Figures only; whoever can connect may read them. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { DeviceError } from '../errors.js';
import { ServerMetrics } from './metrics.js';
import type { VolumeServer } from './volume-server.js';

const CONNECTIONS_MAX = 16;
const PATIENCE_MS = 10_000;

export class MetricsEndpoint {
  readonly #metrics: ServerMetrics;
  readonly #http: Server;

  private constructor(server: VolumeServer) {
    this.#metrics = new ServerMetrics(server);
    this.#http = createServer(
      { requestTimeout: PATIENCE_MS, headersTimeout: PATIENCE_MS, keepAliveTimeout: PATIENCE_MS },
      (request, response) => void this.#answer(request, response),
    );
    this.#http.maxConnections = CONNECTIONS_MAX;
  }

  /** @param onError told of connections that cannot be taken. @throws DeviceError if the address cannot be had */
  static async listen(
    server: VolumeServer,
    { host, port }: { readonly host: string; readonly port: number },
    onError: (error: unknown) => void,
  ): Promise<MetricsEndpoint> {
    const endpoint = new MetricsEndpoint(server);
    const http = endpoint.#http;
    await new Promise<void>((resolve, reject) => {
      http.once('error', (cause) => {
        endpoint.#metrics.close();
        reject(new DeviceError(`cannot listen on ${host}:${port} for metrics: ${cause.message}`, { cause }));
      });
      http.listen(port, host, resolve);
    });
    http.removeAllListeners('error').on('error', onError);
    return endpoint;
  }

  get url(): string {
    const address = this.#http.address();
    if (address === null || typeof address === 'string') throw new DeviceError('metrics are not served');
    const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
    return `http://${host}:${address.port}/metrics`;
  }

  async close(): Promise<void> {
    this.#metrics.close();
    const closed = new Promise<void>((resolve) => {
      this.#http.close(() => resolve());
    });
    this.#http.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split('?')[0];
    if (path !== '/metrics') return void response.writeHead(404).end('see /metrics\n');
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    try {
      const text = await this.#metrics.text();
      response.writeHead(200, { 'content-type': this.#metrics.contentType });
      response.end(request.method === 'HEAD' ? undefined : text);
    } catch (error) {
      response.writeHead(500).end(`${error instanceof Error ? error.message : error}\n`);
    }
  }
}
