/**
 * Figures of a server in the OpenMetrics text form.
 *
 * Nothing is done for them while requests are served: the engine and the NBD server count for themselves, and what they
 * have counted is read when somebody asks.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, type MetricType, Registry } from 'prom-client';
import { LATENCY_BUCKETS_MS, REQUEST_KINDS, type RequestFigures } from '../nbd/server/figures.js';
import type { Volume } from '../volume/volume.js';
import type { VolumeServer } from './volume-server.js';

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];

const HOLD_BUCKETS_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

export class ServerMetrics {
  readonly #registry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>();
  readonly #stops: (() => unknown)[] = [];

  constructor(server: VolumeServer) {
    this.#registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    collectDefaultMetrics({ register: this.#registry });
    this.#addNbd(server);
    this.#addExports(server);
    this.#addVolumes(server);
    this.#addHolds(server);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Listens to the volumes no more. */
  close(): void {
    for (const stop of this.#stops) stop();
    this.#registry.clear();
  }

  #addNbd({ nbd }: VolumeServer): void {
    const each = (value: (figures: RequestFigures) => number) => (): Sample[] =>
      REQUEST_KINDS.map((type) => [{ type }, value(nbd.figures.requests[type])]);
    this.#counter(
      'volsnap_nbd_requests',
      'Requests answered',
      each(({ requests }) => requests),
    );
    this.#counter(
      'volsnap_nbd_request_errors',
      'Requests that failed',
      each(({ errors }) => errors),
    );
    this.#counter(
      'volsnap_nbd_bytes',
      'Bytes of requests that did not fail',
      each(({ bytes }) => bytes),
    );
    this.#gauge('volsnap_nbd_connections', 'Connections open', () => [[{}, nbd.figures.connections]]);
    this.#counter('volsnap_nbd_accepted', 'Connections that came', () => [[{}, nbd.figures.accepted]]);
    this.#counter('volsnap_nbd_rejected', 'Connections refused or cut off', () => [
      [{}, nbd.figures.rejected],
    ]);
    this.#gauge('volsnap_nbd_in_flight', 'Requests being worked on', () => [[{}, nbd.figures.inFlight]]);
    this.#gauge('volsnap_nbd_memory_bytes', 'Bytes of requests and of answers not sent', () => [
      [{}, nbd.memoryBytes],
    ]);
    const latency = () => REQUEST_KINDS.map((type) => [{ type }, nbd.figures.requests[type]] as const);
    this.#registry.registerMetric(new LatencyHistogram(latency));
  }

  #addExports({ exports }: VolumeServer): void {
    const { live, snapshot } = exports.figures;
    const kinds = [
      ['live', live],
      ['snapshot', snapshot],
    ] as const;
    this.#gauge('volsnap_export_users', 'Connections that use an export of the kind', () =>
      kinds.map(([kind, { users }]) => [{ export: kind }, users]),
    );
    this.#counter('volsnap_export_operations', 'Reads and writes of exports of the kind', () =>
      kinds.flatMap(([kind, { reads, writes }]): Sample[] => [
        [{ export: kind, operation: 'read' }, reads],
        [{ export: kind, operation: 'write' }, writes],
      ]),
    );
    this.#counter('volsnap_export_bytes', 'Bytes read and written', () =>
      kinds.flatMap(([kind, { readBytes, writtenBytes }]): Sample[] => [
        [{ export: kind, operation: 'read' }, readBytes],
        [{ export: kind, operation: 'write' }, writtenBytes],
      ]),
    );
    this.#counter('volsnap_export_failures', 'Operations of exports that failed', () =>
      kinds.map(([kind, { failures }]) => [{ export: kind }, failures]),
    );
  }

  #addVolumes({ volumes }: VolumeServer): void {
    const each = (values: (volume: Volume) => readonly Sample[]) => (): Sample[] =>
      volumes.flatMap(({ volume, name }) =>
        values(volume).map(([labels, value]): Sample => [{ volume: name, ...labels }, value]),
      );
    const one = (value: (volume: Volume) => number) => each((volume) => [[{}, value(volume)]]);
    this.#gauge(
      'volsnap_volume_size_bytes',
      'Size of the volume',
      one(({ size }) => size),
    );
    this.#gauge(
      'volsnap_snapshots',
      'Snapshots of the volume',
      one(({ snapshots }) => snapshots.length),
    );
    this.#gauge(
      'volsnap_store_used_bytes',
      'Bytes of copies',
      one(({ figures }) => figures.usedBytes),
    );
    this.#gauge(
      'volsnap_store_allocated_bytes',
      'Bytes that the store takes',
      one(({ figures }) => figures.allocatedBytes),
    );
    this.#gauge(
      'volsnap_store_maximum_bytes',
      'Bytes that the store may take; 0: no limit',
      one(({ figures }) => figures.maximumBytes),
    );
    this.#gauge(
      'volsnap_space_room_bytes',
      'Bytes that further copies may take; +Inf: no bound is known',
      one(({ figures }) => figures.space?.roomBytes ?? Number.POSITIVE_INFINITY),
    );
    this.#gauge(
      'volsnap_space_copy_bytes_per_second',
      'How fast copies take room, averaged over about a minute',
      one(({ figures }) => figures.space?.bytesPerSecond ?? 0),
    );
    this.#gauge(
      'volsnap_space_full_in_seconds',
      'When that room is used up at that rate; +Inf: not in the foreseeable future',
      one(({ figures }) => figures.space?.secondsToFull ?? Number.POSITIVE_INFINITY),
    );
    this.#gauge(
      'volsnap_space_waiting',
      'Copies, with the writes behind them, that wait for room',
      one(({ figures }) => figures.space?.waiting ?? 0),
    );
    this.#gauge(
      'volsnap_space_full',
      '1 while writes wait or fail because there is no room for copies',
      one(({ figures }) => (figures.space?.isFull ? 1 : 0)),
    );
    this.#gauge(
      'volsnap_held_snapshots',
      'Snapshots that nothing deletes',
      one(({ snapshots }) => snapshots.filter(({ held }) => held).length),
    );
    this.#gauge(
      'volsnap_late_snapshots',
      'Snapshots that wait for diff areas which have not arrived',
      one(({ figures }) => figures.late?.ids.length ?? 0),
    );
    this.#gauge(
      'volsnap_table_memory_bytes',
      'Memory of translation tables',
      one(({ figures }) => figures.tableMemoryBytes),
    );
    this.#gauge(
      'volsnap_write_buffer_bytes',
      'Bytes acknowledged and not written yet',
      one(({ figures }) => figures.writeBuffer?.bufferedBytes ?? 0),
    );
    this.#gauge(
      'volsnap_queue_length',
      'Work queued or running, and writes held',
      each(({ figures: { queues } }) =>
        Object.entries(queues).map(([queue, length]): Sample => [{ queue }, length]),
      ),
    );
    this.#gauge(
      'volsnap_deleted_snapshots',
      'Deleted snapshots that older ones read through, not merged yet',
      one(({ figures }) => figures.deletion.snapshots),
    );
    this.#counter(
      'volsnap_merged_bytes',
      'Bytes copied from deleted snapshots into older ones',
      one(({ figures }) => figures.deletion.mergedBytes),
    );
    this.#counter(
      'volsnap_copied_blocks',
      'Blocks saved before they were overwritten',
      each(({ figures: { copies } }) => [
        [{ content: 'data' }, copies.copiedBlocks],
        [{ content: 'zeros' }, copies.zeroBlocks],
      ]),
    );
    this.#counter(
      'volsnap_copy_batches',
      'Batches copied together',
      one(({ figures }) => figures.copies.batches),
    );
    this.#counter(
      'volsnap_copy_groups',
      'Groups of batches made durable by one flush',
      one(({ figures }) => figures.copies.groups),
    );
    this.#counter(
      'volsnap_copy_failures',
      'Attempts that failed',
      one(({ figures }) => figures.copies.failures),
    );
  }

  #addHolds({ volumes }: VolumeServer): void {
    const holds = new Histogram({
      name: 'volsnap_hold_seconds',
      help: 'How long writes were held, or kept in the buffer, for a snapshot',
      labelNames: ['volume'],
      buckets: HOLD_BUCKETS_SECONDS,
      registers: [this.#registry],
    });
    for (const { volume, name } of volumes) {
      holds.zero({ volume: name });
      // The figure is there once the writes have been let go, which is in the same turn.
      const onCreated = () =>
        void setImmediate(() => holds.observe({ volume: name }, volume.figures.lastHoldMs / 1000));
      volume.on('created', onCreated);
      this.#stops.push(() => volume.off('created', onCreated));
    }
  }

  #counter(name: string, help: string, samples: () => readonly Sample[]): void {
    const labelNames = labelsOf(samples);
    new Counter({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of samples()) this.inc(labels, value);
      },
    });
  }

  #gauge(name: string, help: string, samples: () => readonly Sample[]): void {
    const labelNames = labelsOf(samples);
    new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of samples()) this.set(labels, value);
      },
    });
  }
}

const labelsOf = (samples: () => readonly Sample[]): string[] => Object.keys(samples()[0]?.[0] ?? {});

const LATENCY = 'volsnap_nbd_request_seconds';
/** The enumeration exists in prom-client's declarations only. */
const HISTOGRAM = 'histogram' as unknown as MetricType;
const LATENCY_HELP = 'How long requests took';

/** Latency of requests, from the buckets that the NBD server has filled. */
class LatencyHistogram extends Histogram<string> {
  readonly #samples: () => readonly (readonly [Labels, RequestFigures])[];

  constructor(samples: () => readonly (readonly [Labels, RequestFigures])[]) {
    super({
      name: LATENCY,
      help: LATENCY_HELP,
      labelNames: ['type'],
      buckets: LATENCY_BUCKETS_MS.map((ms) => ms / 1000),
      registers: [],
    });
    this.#samples = samples;
  }

  override async get(): ReturnType<Histogram['get']> {
    const values = this.#samples().flatMap(([labels, figures]) => {
      const value = (suffix: string, count: number, more: Record<string, string | number> = {}) => ({
        metricName: `${LATENCY}_${suffix}`,
        exemplar: null,
        labels: { ...more, ...labels },
        value: count,
      });
      let below = 0;
      const buckets = [...figures.latency].map((count, i) => {
        below += count;
        const limit = LATENCY_BUCKETS_MS[i];
        return value('bucket', below, { le: limit === undefined ? '+Inf' : limit / 1000 });
      });
      return [...buckets, value('sum', figures.totalMs / 1000), value('count', below)];
    });
    return {
      name: LATENCY,
      help: LATENCY_HELP,
      type: HISTOGRAM,
      aggregator: 'sum',
      collect: () => undefined,
      values,
    };
  }

  /** What the registry asks. */
  getForPromString(): ReturnType<Histogram['get']> {
    return this.get();
  }
}
