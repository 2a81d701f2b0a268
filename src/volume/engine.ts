/**
 * The parts of one open volume, put together: gate, copy-on-write, snapshots and space over a device and a store.
 */
import type { Apart } from '../copy-on-write/copy-host.js';
import { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import { Pools } from '../copy-on-write/pools.js';
import { ThreadCopier } from '../copy-on-write/thread-copies.js';
import { WriteBuffer } from '../copy-on-write/write-buffer.js';
import { WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import type { Lifetime } from '../device/lifetime.js';
import type { Environment } from '../environment.js';
import { Scrubs } from '../scrub/scrub.js';
import { SnapshotChain } from '../snapshot/chain.js';
import { type Elders, NO_ELDERS } from '../snapshot/elders.js';
import type { Emit } from '../snapshot/events.js';
import type { SpaceWarning } from '../snapshot/forecast.js';
import type { Growth } from '../snapshot/growth.js';
import { LiveDevice } from '../snapshot/live-device.js';
import { Merging } from '../snapshot/merging.js';
import { ProtectedBlocks, type ProtectedWritePolicy } from '../snapshot/protected-blocks.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { Reverts } from '../snapshot/revert.js';
import { Space } from '../snapshot/space.js';
import { ThreadReads } from '../snapshot/thread-reads.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength } from '../units.js';
import type { LateAreas } from './late-areas.js';

/** Blocks from which on a batch is copied in another thread: where writers wait for it, and where they do not. */
const APART_ORDERED = 16;
const APART_WRITEBACK = 4;

export interface EngineOptions {
  readonly environment: Environment;
  readonly memoryLimit: ByteLength;
  /** Bytes that the write buffer may hold; `undefined`: there is none, the mode is `ordered`. */
  readonly writeBackLimit: ByteLength | undefined;
  readonly growth: Growth;
  readonly spaceWarning: SpaceWarning;
  readonly onProtectedWrite: ProtectedWritePolicy;
  /** Default: a thread that works on files. */
  readonly apart: Apart | undefined;
  readonly emit: Emit;
  readonly life: Lifetime;
  /** Default: there are none. */
  readonly elders?: Elders | undefined;
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
  /** Of deleted snapshots. */
  readonly merging: Merging;
  /** Above the gate; in the mode `writeback` everything that reads or changes the live volume goes through it. */
  readonly writes: WriteBuffer | undefined;
  /** Of copies, for whoever reads snapshots. */
  readonly threadReads = new ThreadReads();
  readonly figures = { holdMs: 0 };
  /** The volume as its users see it; snapshots and copies work with `device`. */
  readonly live: LiveDevice;
  readonly reverts: Reverts;
  readonly scrubs: Scrubs;
  /** Diff areas that are waited for. */
  late: LateAreas | undefined;
  /** Of a store that lies inside the volume, and of shadow copies that it has taken over. */
  readonly protectedBlocks: ProtectedBlocks | undefined;

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
    const { environment, growth, elders = NO_ELDERS } = options;
    const { clock } = environment;
    this.chain = new SnapshotChain(records, store.control, this.pools, options.emit, clock, elders);
    const warning = options.spaceWarning;
    this.space = new Space(store, this.chain, this.pools, options.emit, { clock, growth, warning });
    const smallest = options.writeBackLimit === undefined ? APART_ORDERED : APART_WRITEBACK;
    const { memoryLimit, apart = { copier: new ThreadCopier(), smallest } } = options;
    this.copyOnWrite = new CopyOnWrite(clock, device, this.pools, memoryLimit, this.space, apart);
    this.space.serve(this.copyOnWrite);
    this.chain.retarget(this.copyOnWrite);
    const { chain, space, pools, copyOnWrite: copying, emit } = this;
    this.merging = new Merging({ chain, space, pools, copyOnWrite: copying, control: store.control }, emit);
    space.takeFrom(this.merging);
    chain.whenFreed(() => {
      this.merging.wake();
      this.reverts.resume();
    });
    this.live = new LiveDevice(device);
    const { writeBackLimit: limit } = options;
    const { gate, copyOnWrite } = this;
    this.writes =
      limit === undefined
        ? undefined
        : new WriteBuffer({ device: this.live, gate, copyOnWrite, clock, limit });
    this.reverts = new Reverts(this);
    const { taking } = this.reverts;
    const guarded = { store, chain, copyOnWrite, gate, taking, emit, elders };
    this.protectedBlocks =
      store.inside === undefined && elders.count === 0
        ? undefined
        : new ProtectedBlocks(guarded, options.onProtectedWrite);
    this.scrubs = new Scrubs({ chain, pools, copyOnWrite, clock, device, control: store.control }, emit);
  }
}
