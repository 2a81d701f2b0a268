/** When a server that a signal ends has ended well. */
import { expect, test } from 'vitest';
import { untilSignal } from '../../../src/cli/listening.js';
import { Notes, Output } from '../../../src/cli/output.js';

function session() {
  const controller = new AbortController();
  const { signal } = controller;
  return {
    controller,
    session: { json: false, signal, output: new Output(signal), notes: new Notes(false) },
  };
}

test('it serves until the signal', async () => {
  const { controller, session: given } = session();
  let isOver = false;
  const serving = untilSignal(given, async () => undefined).then(() => {
    isOver = true;
  });
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect(isOver).toBe(false);
  controller.abort();
  await serving;
});

test('a signal that comes while it says that it is ready is a good end', async () => {
  const { controller, session: given } = session();
  await untilSignal(given, async () => {
    controller.abort();
    given.signal.throwIfAborted();
  });
});

test('a failure to say so is one', async () => {
  const { controller, session: given } = session();
  const failing = untilSignal(given, async () => {
    controller.abort();
    throw new Error('the disk is full');
  });
  await expect(failing).rejects.toThrow('the disk is full');
});
