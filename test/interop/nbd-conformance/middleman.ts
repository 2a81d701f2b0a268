/** Stands between a client and a server and changes what the server says: a server that is wrong in one known way. */
import { createServer, connect as dial, type Socket } from 'node:net';
import type { Case, Target } from './case.ts';
import { type Outcome, runCase } from './run-cases.ts';

/** Answers on their way to the client, as they arrive; a change keeps the length. */
export type Lie = (bytes: Buffer) => void;

/** Replaces a pattern, both in hexadecimal and equally long, wherever it is. */
export const saying =
  (truth: string, lie: string): Lie =>
  (bytes) => {
    const wanted = Buffer.from(truth.replaceAll(' ', ''), 'hex');
    for (let at = bytes.indexOf(wanted); at !== -1; at = bytes.indexOf(wanted, at + wanted.length))
      bytes.write(lie.replaceAll(' ', ''), at, 'hex');
  };

/** Runs a case against `target` through somebody who lies. */
export async function runThrough(lie: Lie, one: Case, target: Target, path: string): Promise<Outcome> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    // One side gone is the other side's end.
    socket.on('error', () => socket.destroy());
  };
  const server = createServer((client) => {
    const upstream = dial(target.writable.address);
    keep(client);
    keep(upstream);
    client.pipe(upstream);
    upstream.on('data', (bytes: Buffer) => {
      lie(bytes);
      client.write(bytes);
    });
    upstream.on('end', () => client.end());
    upstream.on('close', () => client.destroy());
    client.on('close', () => upstream.destroy());
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const address = { path };
  const through: Target = {
    ...target,
    writable: { ...target.writable, address },
    readOnly: { ...target.readOnly, address },
    large: { ...target.large, address },
  };
  try {
    return await runCase(one, through);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}
