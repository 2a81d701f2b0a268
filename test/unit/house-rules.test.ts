/** Rules of this code base that a compiler does not know. */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

interface SourceFile {
  readonly path: string;
  readonly text: string;
}

async function sources(): Promise<SourceFile[]> {
  const names = await readdir(SOURCE, { recursive: true });
  const paths = names.filter((name) => name.endsWith('.ts'));
  return Promise.all(paths.map(async (path) => ({ path, text: await readFile(join(SOURCE, path), 'utf8') })));
}

/** From the bottom up, as docs/architecture.md draws them; a folder may import from those before it, and from itself. */
const LAYERS = [
  ['.'],
  ['device'],
  ['format', 'filesystem', 'nbd'],
  ['store', 'windows', 'cache'],
  ['diff-area'],
  ['copy-on-write'],
  ['snapshot'],
  ['scrub'],
  ['volume'],
  ['check', 'export'],
  ['serve'],
  ['testing', 'cli'],
];

const layerOf = (folder: string) => LAYERS.findIndex((layer) => layer.includes(folder));
const folderOf = (path: string) => dirname(path).split('/')[0] ?? '.';

test('imports point down', async () => {
  const upward: string[] = [];
  for (const { path, text } of await sources()) {
    const folder = folderOf(path);
    expect(layerOf(folder), `${path} lies in a folder that has a layer`).toBeGreaterThanOrEqual(0);
    if (path === 'index.ts') continue;
    for (const [, target = ''] of text.matchAll(/from '(\.[^']+)'/g)) {
      const imported = relative('.', normalize(join(dirname(path), target)));
      const other = folderOf(imported);
      const isFacade = imported === 'index.js' && layerOf(folder) >= layerOf('check');
      if (other !== folder && !isFacade && (imported === 'index.js' || layerOf(other) >= layerOf(folder))) {
        upward.push(`${path} imports ${imported}`);
      }
    }
  }
  expect(upward).toEqual([]);
});

test('formats know nothing of I/O', async () => {
  for (const { path, text } of await sources()) {
    if (folderOf(path) !== 'format') continue;
    expect(text, path).not.toMatch(/from 'node:(fs|net|child_process)|from '\.\.\/device/);
  }
});

test('time and randomness enter the engine only through its environment', async () => {
  const engine = [
    'format',
    'store',
    'cache',
    'diff-area',
    'copy-on-write',
    'snapshot',
    'scrub',
    'volume',
    'windows',
  ];
  for (const { path, text } of await sources()) {
    if (!engine.includes(folderOf(path))) continue;
    expect(text, path).not.toMatch(
      /Date\.now|performance\.now|Math\.random|randomBytes|setTimeout|setInterval|setImmediate/,
    );
  }
});

test('no file has grown beyond what fits in the head', async () => {
  const long = (await sources()).filter(({ text }) => text.split('\n').length > 380).map(({ path }) => path);
  expect(long).toEqual([]);
});
