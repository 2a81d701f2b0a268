/** Plays the client of one case: sends its bytes in its pieces, and takes what comes. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { u32 } from '../interop/nbd-conformance/bytes.ts';
import { FIXED_NEWSTYLE, NO_ZEROES, Option } from '../interop/nbd-conformance/constants.ts';
import { optionHeader } from '../interop/nbd-conformance/negotiation.ts';
import { type Plan, piecesOf } from './nbd-plan.ts';

/** From the client's end until everything is given back, milliseconds. */
export const SETTLE_MS = 5000;
export const TLS_KEY = Buffer.alloc(32, 7);
export const TLS_USER = 'fuzz';
const GREETING = 18;
const OPTION_REPLY = 20;

export interface Output {
  readonly bytes: Buffer;
  /** The connection ended with an error, or before the end of a TLS handshake. */
  readonly cutOff: boolean;
}

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

export async function converse(plan: Plan, path: string): Promise<Output> {
  const plain = connect({ path, allowHalfOpen: true });
  const received: Buffer[] = [];
  let cutOff = false;
  // Written to after the server closed: what it had sent and was not read yet is lost.
  const noteError = (socket: Socket) =>
    socket.on('error', () => {
      cutOff = true;
    });
  noteError(plain);
  await once(plain, 'connect');
  const socket = plan.channel === 'tls' ? await overTls(plain, received) : plain;
  if (socket === undefined) {
    plain.destroy();
    return { bytes: Buffer.concat(received), cutOff: true };
  }
  if (socket !== plain) noteError(socket);
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  const isDeaf = plan.manner === 'deaf' || plan.manner === 'deaf-vanishes';
  if (isDeaf) socket.pause();
  // Under TLS the flags were sent before.
  let from = plan.channel === 'tls' ? 4 : 0;
  for (const end of piecesOf(plan)) {
    if (end > from) socket.write(plan.bytes.subarray(from, end));
    from = Math.max(from, end);
    await turn();
  }
  if (isDeaf) for (let turns = 0; turns < 20; turns++) await turn();
  if (plan.manner === 'polite' || plan.manner === 'deaf') {
    socket.resume();
    socket.end();
    await closed(socket);
  }
  socket.destroy();
  plain.destroy();
  return { bytes: Buffer.concat(received), cutOff };
}

/** Flags, STARTTLS and the handshake. The greeting is kept in `received`. */
async function overTls(plain: Socket, received: Buffer[]): Promise<Socket | undefined> {
  plain.write(Buffer.concat([u32(FIXED_NEWSTYLE | NO_ZEROES), optionHeader(Option.STARTTLS, 0)]));
  let answer = Buffer.alloc(0);
  while (answer.length < GREETING + OPTION_REPLY) {
    const chunk = await firstOf(plain, 'data');
    if (!Buffer.isBuffer(chunk)) return undefined;
    answer = Buffer.concat([answer, chunk]);
  }
  received.push(answer.subarray(0, GREETING));
  plain.removeAllListeners('data');
  plain.pause();
  const secure = connectTls({
    socket: plain,
    ciphers: 'PSK+HIGH',
    maxVersion: 'TLSv1.2',
    pskCallback: () => ({ psk: TLS_KEY, identity: TLS_USER }),
    checkServerIdentity: () => undefined,
  });
  secure.on('error', () => undefined);
  return (await firstOf(secure, 'secureConnect')) === false ? undefined : secure;
}

/** What the event brings; false if the connection is over instead. */
async function firstOf(socket: Socket, event: 'data' | 'secureConnect'): Promise<unknown> {
  if (socket.destroyed) return false;
  return new Promise((resolve) => {
    const over = () => resolve(false);
    socket.once(event, (value?: unknown) => {
      socket.off('close', over);
      socket.off('end', over);
      resolve(value);
    });
    socket.once('close', over);
    socket.once('end', over);
  });
}

async function closed(socket: Socket): Promise<void> {
  if (socket.readableEnded || socket.destroyed) return;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`the connection is still open ${SETTLE_MS} ms after the client's end`)),
      SETTLE_MS,
    );
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    socket.once('end', done);
    socket.once('close', done);
  });
}
