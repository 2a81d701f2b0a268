/**
 * The parts of one open volume, put together: gate, copy-on-write, snapshots and space over a device and a store.
 */
import { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import { Pools } from '../copy-on-write/pools.js';
import { type ApartCopier, ThreadCopier } from '../copy-on-write/thread-copies.js';
import { WriteBuffer } from '../copy-on-write/write-buffer.js';
import { WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import type { Lifetime } from '../device/lifetime.js';
import type { Environment } from '../environment.js';
import { SnapshotChain } from '../snapshot/chain.js';
import type { Emit } from '../snapshot/events.js';
import type { SpaceWarning } from '../snapshot/forecast.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { type Growth, Space } from '../snapshot/space.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength } from '../units.js';

export interface EngineOptions {
  readonly environment: Environment;
  readonly memoryLimit: ByteLength;
  /** Bytes that the write buffer may hold; `undefined`: there is none, the mode is `ordered`. */
  readonly writeBackLimit: ByteLength | undefined;
  readonly growth: Growth;
  readonly spaceWarning: SpaceWarning;
  /** Default: a thread. */
  readonly copier: ApartCopier | undefined;
  readonly emit: Emit;
  readonly life: Lifetime;
}

export class Engine {
  readonly environment: Environment;
  readonly emit: Emit;
  /** Calls under way, those on snapshots included. */
  readonly life: Lifetime;
  readonly pools = new Pools();
  readonly gate: WriteGate;
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly copyOnWrite: CopyOnWrite;
  /** Above the gate; in the mode `writeback` everything that reads or changes the live volume goes through it. */
  readonly writes: WriteBuffer | undefined;
  readonly figures = { holdMs: 0 };

  constructor(
    readonly device: BlockDevice,
    readonly store: AttachedStore,
    records: readonly SnapshotRecord[],
    options: EngineOptions,
  ) {
    this.environment = options.environment;
    this.emit = options.emit;
    this.life = options.life;
    this.gate = new WriteGate(options.environment.clock);
    this.chain = new SnapshotChain(
      records,
      store.control,
      this.pools,
      options.emit,
      options.environment.clock,
    );
    this.space = new Space(store, this.chain, this.pools, options.emit, {
      clock: options.environment.clock,
      growth: options.growth,
      warning: options.spaceWarning,
    });
    const { memoryLimit, copier = new ThreadCopier() } = options;
    const { clock } = options.environment;
    this.copyOnWrite = new CopyOnWrite(device, this.pools, memoryLimit, this.space, clock, copier);
    this.space.serve(this.copyOnWrite);
    this.copyOnWrite.setTarget(this.chain.newest?.area);
    const { writeBackLimit: limit } = options;
    const { gate, copyOnWrite } = this;
    this.writes =
      limit === undefined ? undefined : new WriteBuffer({ device, gate, copyOnWrite, clock, limit });
  }
}
