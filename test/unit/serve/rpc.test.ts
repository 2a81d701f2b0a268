/** Requests and answers of the control channel, with peers of every kind. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { InUseError, SnapshotDeletedError } from '../../../src/errors.ts';
import { RpcClient } from '../../../src/serve/rpc/client.ts';
import { PeerGoneError } from '../../../src/serve/rpc/errors.ts';
import {
  encodeFrame,
  FRAME_HEADER_SIZE,
  type Frame,
  FrameDecoder,
  FrameKind,
  ProtocolError,
} from '../../../src/serve/rpc/frame.ts';
import { type Answerer, RpcConnection } from '../../../src/serve/rpc/server.ts';
import { signal } from '../engine/hooks.ts';

const LIMITS = { json: 10_000, bytes: 100_000 };

describe('messages', () => {
  const frame = fc.record({
    kind: fc.constantFrom(...Object.values(FrameKind)),
    id: fc.nat(0xffff_ffff),
    value: fc.option(fc.jsonValue(), { nil: undefined }),
    bytes: fc.uint8Array({ maxLength: 300 }),
  });

  test('come out as they went in, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 60 })),
        (frames, cuts) => {
          const stream = Buffer.concat(
            frames.flatMap(({ kind, id, value, bytes }) => [
              encodeFrame(kind, id, value, bytes.byteLength),
              bytes,
            ]),
          );
          const decoder = new FrameDecoder(LIMITS);
          const found: Frame[] = [];
          for (let at = 0, i = 0; at < stream.byteLength; i++) {
            const end = at + (cuts[i] ?? stream.byteLength);
            // What is passed in may be reused at once.
            const chunk = Buffer.from(stream.subarray(at, end));
            found.push(...decoder.push(chunk));
            chunk.fill(0xee);
            at = end;
          }
          expect(decoder.isHalfWay).toBe(false);
          expect(found.map(({ bytes, ...rest }) => ({ ...rest, bytes: [...bytes] }))).toEqual(
            frames.map(({ value, bytes, ...rest }) => ({
              ...rest,
              value: value === undefined ? undefined : JSON.parse(JSON.stringify(value)),
              bytes: [...bytes],
            })),
          );
        },
      ),
    );
  });

  test('of something else are refused, whatever they hold', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 200, maxLength: 400 }), (bytes) => {
        if (bytes[0] === 0x76 && bytes[1] === 0x73) return;
        expect(() => [...new FrameDecoder(LIMITS).push(bytes)]).toThrow(ProtocolError);
      }),
    );
  });

  test.each([
    ['of another version', (head: Buffer) => head.writeUInt8(9, 2)],
    ['of an unknown kind', (head: Buffer) => head.writeUInt8(77, 3)],
    ['with too long a text', (head: Buffer) => head.writeUInt32BE(LIMITS.json + 1, 8)],
    ['with too many bytes', (head: Buffer) => head.writeUInt32BE(LIMITS.bytes + 1, 12)],
  ])('%s are refused by their head alone', (_, change) => {
    const head = Buffer.from(encodeFrame(FrameKind.request, 1).subarray(0, FRAME_HEADER_SIZE));
    change(head);
    expect(() => [...new FrameDecoder(LIMITS).push(head)]).toThrow(ProtocolError);
  });

  test('that are given up half-way leave the buffer alone from then on', () => {
    const target = Buffer.alloc(1000);
    const decoder = new FrameDecoder(LIMITS, () => target);
    expect([...decoder.push(encodeFrame(FrameKind.result, 7, {}, 1000))]).toEqual([]);
    expect([...decoder.push(Buffer.alloc(300, 1))]).toEqual([]);
    decoder.release(8); // Another one.
    expect([...decoder.push(Buffer.alloc(100, 2))]).toEqual([]);
    decoder.release(7);
    expect([...decoder.push(Buffer.alloc(600, 3))]).toHaveLength(1);
    expect([target[299], target[399], target[400], target[999]]).toEqual([1, 2, 0, 0]);
  });

  test('with a text that is no JSON are refused', () => {
    const bytes = encodeFrame(FrameKind.request, 1, 'text');
    bytes.write('{', FRAME_HEADER_SIZE);
    expect(() => [...new FrameDecoder(LIMITS).push(bytes)]).toThrow(ProtocolError);
  });
});

/** A server on a socket of its own, and clients of it. */
async function serve(answer: Answerer) {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-rpc-'));
  const path = join(folder, 'socket');
  const sockets: Socket[] = [];
  const connections: RpcConnection[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    connections.push(new RpcConnection(socket, answer));
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await rm(folder, { recursive: true });
  });
  const raw = async () => {
    const socket = createConnection(path);
    onTestFinished(() => void socket.destroy());
    await new Promise((resolve) => socket.once('connect', resolve));
    return socket;
  };
  const events: unknown[] = [];
  const connect = async () => {
    const socket = await raw();
    const client = new RpcClient(socket, 'the server', (event) => events.push(event));
    socket.on('data', (chunk: Buffer) => client.receive(chunk));
    return client;
  };
  return { connect, raw, connections, sockets, events };
}

const echo: Answerer = async (method, { params, bytes }) => ({ value: { method, params }, bytes });

describe('a server and its clients', () => {
  test('many requests at once get each its own answer', async () => {
    const { connect } = await serve(async (method, call) => {
      // The later ones first.
      for (let turn = 0; turn < 200 - Number(call.params); turn++)
        await new Promise((resolve) => setImmediate(resolve));
      return echo(method, call);
    });
    const client = await connect();
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => client.request('double', i, { bytes: Buffer.alloc(i * 100, i) })),
    );
    for (const [i, { value, bytes }] of answers.entries()) {
      expect(value).toEqual({ method: 'double', params: i });
      expect(bytes.byteLength).toBe(i * 100);
      expect(bytes.every((byte) => byte === i)).toBe(true);
    }
  });

  test('bytes of an answer go where they are wanted', async () => {
    const { connect } = await serve(async () => ({ bytes: Buffer.alloc(300_000, 7) }));
    const target = Buffer.alloc(300_000);
    const { bytes } = await (await connect()).request('read', {}, { target });
    expect(bytes).toBe(target);
    expect(target.every((byte) => byte === 7)).toBe(true);
  });

  test('errors arrive as what they were', async () => {
    const { connect } = await serve(async (method) => {
      if (method === 'gone') throw new SnapshotDeletedError('the snapshot is gone');
      if (method === 'used') throw new InUseError('somebody has it');
      throw new TypeError('a bug');
    });
    const client = await connect();
    await expect(client.request('gone', {})).rejects.toThrow(
      new SnapshotDeletedError('the snapshot is gone'),
    );
    await expect(client.request('gone', {})).rejects.toBeInstanceOf(SnapshotDeletedError);
    await expect(client.request('used', {})).rejects.toMatchObject({ code: 'IN_USE', name: 'InUseError' });
    await expect(client.request('other', {})).rejects.toMatchObject({ name: 'TypeError', message: 'a bug' });
  });

  test('a request that is given up is aborted on the other side, and its buffer is left alone', async () => {
    const [begun, aborted, release] = [signal(), signal(), signal()];
    const { connect } = await serve(async (method, call) => {
      if (method !== 'slow') return echo(method, call);
      call.signal.addEventListener('abort', aborted.fire);
      begun.fire();
      await release.promise;
      return { bytes: Buffer.alloc(100_000, 9) };
    });
    const client = await connect();
    const controller = new AbortController();
    const target = Buffer.alloc(100_000);
    const slow = client.request('slow', {}, { signal: controller.signal, target });
    await begun.promise;
    controller.abort();
    await expect(slow).rejects.toMatchObject({ name: 'AbortError' });
    await aborted.promise;
    release.fire();
    // Answers come in order here, so the one that nobody wants has come when this one has.
    await client.request('quick', {});
    expect(target.every((byte) => byte === 0)).toBe(true);
    await expect(client.request('late', {}, { signal: controller.signal })).rejects.toMatchObject({
      name: 'AbortError',
    });
  });

  test('progress and events arrive before the answer', async () => {
    const { connect, connections, events } = await serve(async (_, { onProgress }) => {
      onProgress(1, 2);
      connections[0]?.tell({ name: 'deleted' });
      return { value: 'done' };
    });
    const client = await connect();
    await client.request('first', {}); // Before it is answered no events are sent.
    expect(events).toEqual([]);
    const seen: unknown[] = [];
    await client.request(
      'work',
      {},
      { onProgress: (done, total) => seen.push([done, total, events.length]) },
    );
    expect(seen).toEqual([[1, 2, 0]]);
    expect(events).toEqual([{ name: 'deleted' }]);
  });

  test('a client that goes has its requests aborted', async () => {
    const [begun, aborted] = [signal(), signal()];
    const { connect } = await serve(async (_, call) => {
      call.signal.addEventListener('abort', aborted.fire);
      begun.fire();
      await aborted.promise;
      return {};
    });
    const client = await connect();
    const request = client.request('work', {});
    await begun.promise;
    await Promise.all([client.close(), expect(request).rejects.toBeInstanceOf(PeerGoneError)]);
    await aborted.promise;
  });

  test('no more than 16 requests of one client are worked on at once, and all are answered', async () => {
    let [now, most] = [0, 0];
    const { connect } = await serve(async () => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setImmediate(resolve));
      now--;
      return { bytes: Buffer.alloc(100_000) };
    });
    const client = await connect();
    await Promise.all(Array.from({ length: 500 }, () => client.request('read', {})));
    expect(most).toBeLessThanOrEqual(16);
    expect(most).toBeGreaterThan(1);
  });

  test.each([
    ['garbage', Buffer.from('GET / HTTP/1.1\r\nHost: volsnap\r\n\r\n')],
    ['an answer where a request belongs', encodeFrame(FrameKind.result, 1, {})],
    ['a request without a method', encodeFrame(FrameKind.request, 1, { params: {} })],
    ['a request that claims to be huge', encodeFrame(FrameKind.request, 1, { method: 'write' }, 2 ** 31)],
  ])('a peer that sends %s is cut off, and others are not disturbed', async (_, bytes) => {
    const { connect, raw } = await serve(echo);
    const [good, bad] = [await connect(), await raw()];
    const closed = new Promise((resolve) => bad.once('close', resolve));
    bad.resume().on('error', () => undefined);
    bad.write(bytes);
    await closed;
    expect((await good.request('still', 1)).value).toEqual({ method: 'still', params: 1 });
  });

  test('a peer that stops in the middle of a message is nobody’s trouble', async () => {
    const { connect, raw } = await serve(echo);
    const half = await raw();
    half.write(encodeFrame(FrameKind.request, 1, { method: 'write' }, 1000).subarray(0, 20));
    const client = await connect();
    for (let i = 0; i < 20; i++) expect((await client.request('go', i)).value).toMatchObject({ params: i });
  });

  test('a peer that does not take its answers is not worked for any further', async () => {
    let worked = 0;
    const { raw, connect } = await serve(async () => {
      worked++;
      return { bytes: Buffer.alloc(4 * 1024 * 1024) };
    });
    const deaf = await raw();
    deaf.pause();
    for (let id = 1; id <= 200; id++) deaf.write(encodeFrame(FrameKind.request, id, { method: 'read' }));
    await (await connect()).request('read', {});
    await (await connect()).request('read', {});
    expect(worked).toBeLessThanOrEqual(16 + 2);
  });

  test.each([
    ['garbage', Buffer.alloc(64, 'x')],
    ['an error without content', encodeFrame(FrameKind.error, 1)],
    ['a request', encodeFrame(FrameKind.request, 1, { method: 'you' })],
  ])('a client whose server answers %s fails, and does not hang', async (_, bytes) => {
    const never = signal();
    const { connect, sockets } = await serve(async () => {
      sockets[0]?.write(bytes);
      await never.promise;
      return {};
    });
    const client = await connect();
    await expect(client.request('anything', {})).rejects.toBeInstanceOf(PeerGoneError);
    await expect(client.request('more', {})).rejects.toBeInstanceOf(PeerGoneError);
    await client.ended;
  });
});
