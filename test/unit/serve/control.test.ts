/** A volume through the control channel of its owner, both in one process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkServedVolume } from '../../../src/check/served.ts';
import { InvalidArgumentError } from '../../../src/errors.ts';
import { connectToOwner } from '../../../src/serve/connect.ts';
import { ControlServer } from '../../../src/serve/control-server.ts';
import type { RemoteVolume } from '../../../src/serve/remote-volume.ts';
import { RpcClient } from '../../../src/serve/rpc/client.ts';
import type { DeletionReason } from '../../../src/snapshot/record.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import type { ChangedExtent } from '../../../src/volume/changed-blocks.ts';
import { expectSame, World, type WorldOptions } from '../engine/world.ts';

async function owned(options: WorldOptions = {}, siblings: readonly World[] = []) {
  const world = await World.create(options);
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-control-'));
  const path = join(folder, 'control.sock');
  const server = await ControlServer.listen(path, {
    volume: world.volume,
    identity: undefined,
    serving: () => ({
      pid: process.pid,
      uris: [],
      forMs: 0,
      connections: 0,
      inFlight: 0,
      reads: 0,
      readBytes: 0,
      writes: 0,
      writtenBytes: 0,
      flushes: 0,
      failures: 0,
    }),
    onError: (error) => {
      throw error;
    },
    siblings: () => siblings.map(({ volume }) => volume),
    check: (how) => checkServedVolume(world.volume, how),
  });
  const remotes: RemoteVolume[] = [];
  onTestFinished(async () => {
    for (const remote of remotes) await remote.close();
    await server.withdraw();
    await server.end();
    await rm(folder, { recursive: true });
  });
  const reach = () => connectToOwner({ volume: join(folder, 'nothing'), store: folder });
  const connect = async () => {
    const remote = await reach();
    if (remote === undefined) throw new Error('nobody answers');
    remotes.push(remote);
    return remote;
  };
  return { world, server, connect, reach, path };
}

async function all(extents: AsyncIterable<ChangedExtent>): Promise<ChangedExtent[]> {
  const found: ChangedExtent[] = [];
  for await (const extent of extents) found.push(extent);
  return found;
}

describe('a remote volume', () => {
  test('takes a set together with others of the same process, and only those', async () => {
    const other = await World.create({ seed: 'other' });
    const { world, connect } = await owned({}, [other]);
    const remote = await connect();
    const set = await remote.createSet([other.volume.id ?? ''], { label: 'both' });
    expect(set.members.map(({ storeId }) => storeId)).toEqual([
      world.volume.snapshots[0]?.id,
      other.volume.snapshots[0]?.id,
    ]);
    expect(remote.snapshots[0]).toMatchObject({ setId: set.setId, inSet: true, label: 'both' });
    await expect(remote.createSet(['00000000-0000-0000-0000-000000000001'])).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(world.volume.snapshots).toHaveLength(1);
  });

  test('hides a snapshot, and loses what it took for itself when the connection ends', async () => {
    const { world, connect } = await owned();
    const older = await world.volume.createSnapshot();
    const remote = await connect();
    const snapshot = await remote.createSnapshot({ autoRelease: true });
    const newer = await world.volume.createSnapshot();
    await snapshot.change({ hidden: true });
    expect(snapshot.hidden).toBe(true);
    const gone = new Promise((resolve) => world.volume.once('deleted', resolve));
    await remote.close();
    await gone;
    expect(world.volume.snapshots).toEqual([older, newer]);
    await world.volume.settled();
    expect(world.volume.figures.deletion).toMatchObject({ snapshots: 0, mergedSnapshots: 1 });
  });

  test('copies within itself, and writes its snapshots', async () => {
    const { world, connect } = await owned();
    const remote = await connect();
    const snapshot = await remote.createSnapshot({ writable: true });
    expect(snapshot.writable).toBe(true);
    world.model.snapshots.set(snapshot.id, world.model.bytes.slice());
    await remote.copyRange(2 * BLOCK_SIZE, 20 * BLOCK_SIZE, 3 * BLOCK_SIZE);
    world.model.bytes.copyWithin(20 * BLOCK_SIZE, 2 * BLOCK_SIZE, 5 * BLOCK_SIZE);
    const bytes = world.random.fill(new Uint8Array(5000));
    await snapshot.write(7000, bytes);
    await snapshot.writeZeroes(9000, 40_000);
    world.model.of(snapshot.id).set(bytes, 7000);
    world.model.of(snapshot.id).fill(0, 9000, 49_000);
    await snapshot.flush();
    await world.expectRight();
    await remote.refresh();
    expect(snapshot.movedBytes).toBe(3 * BLOCK_SIZE);
    await snapshot.setWritable(false);
    expect(snapshot.writable).toBe(false);
    await expect(snapshot.write(0, bytes)).rejects.toMatchObject({ code: 'READ_ONLY' });
  });

  test('leaves out what nothing uses as the volume itself, and hears why it does not', async () => {
    const { world, connect } = await owned({ size: 1024 * 1024 });
    const remote = await connect();
    const reasons: unknown[] = [];
    remote.on('unusedSpaceUnknown', ({ reason }) => reasons.push(reason));
    const snapshot = await remote.createSnapshot({ unusedSpace: 'auto' });
    expect(snapshot.unusedBytes).toBe(0);
    expect(reasons).toEqual(['no file system was recognized']);
    const provider = { name: 'mine', unusedBlocks: async () => ({ unused: new Uint8Array([6]) }) };
    await expect(remote.createSnapshot({ unusedSpace: provider })).rejects.toThrow(InvalidArgumentError);
    await remote.deleteOldest();
    const taken = await world.volume.createSnapshot({ unusedSpace: provider });
    await remote.refresh();
    expect(remote.snapshots.map(({ id, unusedBytes }) => ({ id, unusedBytes }))).toEqual([
      { id: taken.id, unusedBytes: 2 * BLOCK_SIZE },
    ]);
  });

  test('reads, writes and takes snapshots like the volume itself', async () => {
    const { world, connect } = await owned({ size: 10 * 1024 * 1024 });
    const remote = await connect();
    const snapshot = await remote.createSnapshot({ label: 'one', applicationInfo: Buffer.from([1, 2, 3]) });
    world.model.snapshots.set(snapshot.id, world.model.bytes.slice());
    const bytes = world.random.fill(new Uint8Array(9 * 1024 * 1024)); // In more than two requests.
    await remote.write(1000, bytes);
    world.model.write(1000, bytes);
    await remote.flush();
    await world.expectRight();
    expectSame(await remote.read(0, remote.size), world.model.bytes, 'the volume');
    expectSame(await snapshot.read(0, snapshot.size), world.model.of(snapshot.id), 'the snapshot');
    const [own] = world.volume.snapshots;
    const { id, storeId, setId, label, createdAt, order, size, state, problem } = snapshot;
    expect({ id, storeId, setId, label, createdAt, order, size, state, problem }).toEqual({
      id: own?.id,
      storeId: own?.storeId,
      setId: own?.setId,
      label: 'one',
      createdAt: own?.createdAt,
      order: 1,
      size: world.size,
      state: 'ok',
      problem: undefined,
    });
    expect([...(snapshot.applicationInfo ?? [])]).toEqual([1, 2, 3]);
    expect(await remote.check({ scrub: true })).toEqual([]);
    for (const offset of [remote.size, -1, 0.5]) {
      const refusal = { code: 'INVALID_ARGUMENT' };
      await expect(remote.read(offset, 1)).rejects.toMatchObject(refusal);
      await expect(remote.write(offset, new Uint8Array(1))).rejects.toMatchObject(refusal);
    }
  });

  test('tells the same changes as the volume, in any range', async () => {
    const { world, connect } = await owned();
    const remote = await connect();
    const since = await remote.createSnapshot();
    await world.writeRandomly(20);
    const until = await remote.createSnapshot();
    await world.writeRandomly(20);
    const [a, b] = world.volume.snapshots;
    if (a === undefined || b === undefined) throw new Error('two snapshots were taken');
    const range = { offset: 5000, length: 40 * BLOCK_SIZE };
    expect(await all(remote.changedBlocks({ since }))).toEqual(
      await all(world.volume.changedBlocks({ since: a })),
    );
    expect(await all(remote.changedBlocks({ since, until, ...range }))).toEqual(
      await all(world.volume.changedBlocks({ since: a, until: b, ...range })),
    );
    expect(await all(remote.changedBlocks({ since, until, compare: true }))).toEqual(
      await all(world.volume.changedBlocks({ since: a, until: b, compare: true })),
    );
    for (const alignment of [1, 3 * BLOCK_SIZE])
      expect(await all(remote.changedBlocks({ until, alignment }))).toEqual(
        await all(world.volume.changedBlocks({ until: b, alignment })),
      );
    await expect(all(remote.changedBlocks({ since: until, until: since }))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    const signal = AbortSignal.abort();
    await expect(all(remote.changedBlocks({ since, signal }))).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('scrubs in the process that owns the volume, and tells of it there and here', async () => {
    const { world, connect } = await owned();
    const [remote, other] = [await connect(), await connect()];
    const snapshot = await remote.createSnapshot();
    const before = world.model.bytes.slice(3 * BLOCK_SIZE, 4 * BLOCK_SIZE);
    await world.writeBlock(3);
    const ends: string[] = [];
    other.on('scrubbed', ({ outcome, problems }) => ends.push(`${outcome} ${problems}`));
    expect((await remote.scrub({ bytesPerSecond: 1 << 30 })).problems).toEqual([]);
    const area = world.volume.parts.writer?.engine.chain.records[0]?.area;
    if (area === undefined) throw new Error('the snapshot has a diff area');
    const place = area.positionOf(area.table.slotOf(3));
    await area.file.device.write(place, new Uint8Array(10));
    const found = { code: 'checksum', snapshot: snapshot.id, block: 3, affected: [snapshot.id] };
    expect(await remote.check({ scrub: true })).toMatchObject([found]);
    await world.write(3 * BLOCK_SIZE, before);
    expect(await remote.check({ scrub: true, repair: true })).toMatchObject([{ ...found, repaired: true }]);
    const controller = new AbortController();
    const scrub = remote.scrub({ bytesPerSecond: 1, signal: controller.signal });
    await other.refresh();
    expect(other.figures.scrub).toMatchObject({ bytesPerSecond: 1 });
    controller.abort();
    await expect(scrub).rejects.toMatchObject({ name: 'AbortError' });
    while (ends.length < 4) await other.refresh();
    expect(ends).toEqual(['finished 0', 'finished 1', 'finished 1', 'stopped 0']);
    expect(other.figures.scrub).toBeUndefined();
    await expect(remote.scrub({ bytesPerSecond: -1 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('hears of deletions before the answer to what caused them', async () => {
    const { world, connect } = await owned();
    const remote = await connect();
    const snapshots = [await remote.createSnapshot(), await remote.createSnapshot()];
    await world.writeRandomly(40);
    const gone: [string, DeletionReason][] = [];
    remote.on('deleted', ({ id, reason }) => void gone.push([id, reason]));
    await remote.setMaximumSize(1);
    expect(gone).toEqual(snapshots.map(({ id }) => [id, 'limit-lowered']));
    expect(remote.snapshots).toEqual([]);
    expect(snapshots.map(({ state }) => state)).toEqual(['deleted', 'deleted']);
    expect(remote.figures.maximumBytes).toBe(1);
  });

  test('deletes what its user saw, or nothing', async () => {
    const { world, connect } = await owned();
    const [one, other] = [await connect(), await connect()];
    for (let i = 0; i < 3; i++) await world.snapshot();
    await one.refresh();
    await other.refresh();
    const [first, second] = one.snapshots;
    await one.deleteOldest();
    expect(one.snapshots[0]).toBe(second);
    await expect(other.deleteOldest()).rejects.toThrow(`snapshot ${first?.id} of volume has gone`);
    expect(world.volume.snapshots).toHaveLength(2);
    const [, third] = one.snapshots;
    await third?.delete({ wait: true });
    expect(one.snapshots).toEqual([second]);
    expect(one.figures.deletion).toMatchObject({ snapshots: 0, mergedSnapshots: 1 });
    await expect(third?.delete()).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await second?.delete();
    expect(world.volume.snapshots).toHaveLength(0);
    await one.settled();
  });
});

describe('the end of an owner', () => {
  test('lets who comes in between wait until it is over, and then try elsewhere', async () => {
    const { server, reach, connect } = await owned();
    const early = await connect();
    const used = await connect();
    await used.flush();
    server.refuse();
    let isOver = false;
    const late = reach().then((remote) => ({ remote, isOver }));
    const refusal = await early.flush().catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: 'CLOSED' });
    expect(early.isRefused(refusal)).toBe(true);
    // Who has been given something must not begin anew by itself.
    const later = await used.flush().catch((error: unknown) => error);
    expect(used.isRefused(later)).toBe(false);
    await server.withdraw();
    expect(await reach()).toBeUndefined();
    isOver = true;
    await server.end();
    expect(await late).toEqual({ remote: undefined, isOver: true });
  });

  test('fails the requests of those who are connected', async () => {
    const { server, connect } = await owned();
    const remote = await connect();
    await server.end();
    await expect(remote.flush()).rejects.toMatchObject({ code: 'DEVICE' });
  });
});

test('requests that make no sense get an error, and the next ones an answer', async () => {
  const { world, path } = await owned();
  const socket = createConnection(path);
  const client = new RpcClient(socket, 'the owner', () => undefined);
  socket.on('data', (chunk: Buffer) => client.receive(chunk));
  for (const [method, params] of [
    ['explode', {}],
    ['read', undefined],
    ['read', { offset: 0, length: 1e9 }],
    ['read', { offset: -5, length: 10 }],
    ['read', { offset: 0, length: 'ten' }],
    ['read', { snapshot: 'none', offset: 0, length: 1 }],
    ['write', { offset: 'here' }],
    ['deleteOldest', undefined],
    ['deleteOldest', { ids: ['none'] }],
    ['delete', undefined],
    ['delete', { id: 'none' }],
    ['changed', { since: 7 }],
    ['resize', { maximumSize: -1 }],
    ['create', null],
    ['check', undefined],
  ] as const) {
    await expect(client.request(method, params), method).rejects.toThrow();
  }
  const { value } = await client.request('state', undefined);
  expect(value).toMatchObject({ size: world.size, snapshots: [] });
  await client.close();
});

test('a greeting for another volume is refused', async () => {
  const world = await World.create();
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-control-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const server = await ControlServer.listen(join(folder, 'control.sock'), {
    volume: world.volume,
    identity: 'file 1 2',
    serving: () => {
      throw new Error('not asked');
    },
    onError: () => undefined,
    check: async () => [],
  });
  onTestFinished(() => server.end());
  await expect(connectToOwner({ volume: folder, store: folder })).rejects.toMatchObject({ code: 'IN_USE' });
});
