/** Looking for the process that serves a volume, and finding one that does not answer. */
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { connectToOwner } from '../../../src/serve/connect.ts';

/** A volume, and a control socket of it where somebody listens who never says anything. */
async function silentlyServed(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-connect-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const volume = join(folder, 'disk.img');
  await writeFile(volume, '');
  await mkdir(`${volume}.volsnap`);
  const server = createServer((socket) => socket.on('error', () => undefined).resume());
  server.listen(join(`${volume}.volsnap`, 'control.sock'));
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  onTestFinished(() => void vi.useRealTimers());
  return volume;
}

test('an owner that does not answer is an error after a minute', async () => {
  const volume = await silentlyServed();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  let outcome: unknown;
  void connectToOwner({ volume }).catch((error: unknown) => {
    outcome = error;
  });
  await vi.waitFor(() => expect(vi.getTimerCount()).toBe(1));
  await vi.advanceTimersByTimeAsync(59_000);
  expect(outcome).toBeUndefined();
  await vi.advanceTimersByTimeAsync(1_000);
  await vi.waitFor(() => expect(outcome).toMatchObject({ code: 'DEVICE' }));
  expect(String(outcome)).toContain('has not answered for 60 seconds');
});

test('waiting for it can be given up', async () => {
  const volume = await silentlyServed();
  const controller = new AbortController();
  const connecting = connectToOwner({ volume }, controller.signal);
  setTimeout(() => controller.abort(new Error('enough')), 50);
  await expect(connecting).rejects.toThrow('enough');
});
