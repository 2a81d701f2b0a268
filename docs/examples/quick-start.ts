/**
 * The quick start: a file system is protected, wrecked in the middle of a write, and given back.
 *
 *     npm run quick-start            # in a temporary folder, removed at the end
 *     npm run quick-start -- --keep  # the folder stays, to look around
 *
 * It uses the built `volsnap` command as anybody would; every command that it shows can be repeated by hand.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, styleText } from 'node:util';

const PROGRAM =
  process.env.VOLSNAP_PROGRAM ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const MEBIBYTE = 1024 * 1024;
const VOLUME_SIZE = 64 * MEBIBYTE;
const FILE_COUNT = 180;
/** How much of the new content the writer has taken when it is killed. */
const KILL_AT = 0.6 * VOLUME_SIZE;
const TOOLS = ['mkfs.ext4', 'e2fsck', 'debugfs'];
// Where the tools are, even if this user's PATH leaves administration out.
const environment = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

const { values: flags } = parseArgs({ options: { keep: { type: 'boolean', default: false } } });
const isColourful = process.stdout.isTTY && !process.env.NO_COLOR;
const styled = (style: Parameters<typeof styleText>[0], text: string) =>
  isColourful ? styleText(style, text) : text;

const started = performance.now();
let steps = 0;
const missing = TOOLS.filter((tool) => spawnSync(tool, ['-V'], { env: environment }).error !== undefined);
if (missing.length > 0) {
  console.error(
    `The quick start needs ${missing.join(', ')}: install e2fsprogs (apt install e2fsprogs, dnf install e2fsprogs).`,
  );
  process.exit(1);
}
const folder = await mkdtemp(join(tmpdir(), 'volsnap-quick-start-'));
try {
  process.exitCode = (await quickStart()) ? 0 : 1;
} finally {
  if (flags.keep) {
    say('', `The folder stays: cd ${folder}`, `There, volsnap is: alias volsnap='node ${PROGRAM}'`);
  } else {
    await rm(folder, { recursive: true, force: true });
    say('', `${folder} is removed again; npm run quick-start -- --keep leaves it for you to look around.`);
  }
}

async function quickStart(): Promise<boolean> {
  say(
    styled('bold', 'volsnap: a volume is protected, wrecked, and given back.'),
    `All of it happens in ${folder}.`,
  );

  step('A volume with files');
  const hashes = await makeFiles('files');
  await makeFiles('other');
  show('mkfs.ext4', '-q', '-d', 'files', 'disk.img', '64M');
  say(`   ${hashes.size} files in an ext4 file system of 64 MiB. Their hashes are noted.`);

  step('Protect it');
  show('volsnap', 'init', 'disk.img');

  step('Take a snapshot');
  const id = show('volsnap', 'create', 'disk.img', '--label', 'before the accident').trim().slice(0, 8);

  step('The accident');
  say('   Every file is overwritten, and in the middle the process is killed: no warning, no clean-up.');
  run('mkfs.ext4', '-q', '-d', 'other', 'other.img', '64M');
  command('volsnap write disk.img < other.img &');
  command('kill -9 $!');
  const fed = await writeAndKill();
  const intact = await countIntact('disk.img', 'now', hashes);
  say(
    `   Killed after about ${mebibytes(fed)} of 64 MiB. Files in the volume that are as they were: ${styled('red', String(intact))}.`,
  );

  step('Open it again');
  show('volsnap', 'list', 'disk.img');
  show('volsnap', 'check', 'disk.img', '--scrub');
  show('volsnap', 'map', 'disk.img');

  step('Get everything back');
  show('volsnap', 'export', 'disk.img', id, '-o', 'before.img');
  command('e2fsck -fn before.img');
  const { status, stdout } = spawnSync('e2fsck', ['-fn', 'before.img'], {
    cwd: folder,
    env: environment,
    encoding: 'utf8',
  });
  say(...indent(stdout.trim().split('\n').slice(-1)));
  const back = await countIntact('before.img', 'back', hashes);
  say(`   Files that are as they were: ${styled('green', `${back} of ${hashes.size}`)}.`);

  step('What it took');
  const info = JSON.parse(run('volsnap', 'info', 'disk.img', '--json'));
  const diff: { length: number }[] = JSON.parse(run('volsnap', 'diff', 'disk.img', id, '--json'));
  const changed = diff.reduce((sum, { length }) => sum + length, 0);
  say(
    `   ${mebibytes(changed)} were overwritten; to keep what was there the snapshot uses ${mebibytes(info.usedBytes)}.`,
  );

  const isGood = status === 0 && back === hashes.size && intact < back && changed > 0;
  const figures = `${back} of ${hashes.size} files, e2fsck ${status === 0 ? 'clean' : `status ${status}`}, ${mebibytes(info.usedBytes)} used`;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  say(
    '',
    styled(
      isGood ? ['bold', 'green'] : ['bold', 'red'],
      `Verdict: ${isGood ? 'everything is back' : 'SOMETHING IS LOST'} (${figures}), in ${seconds} s.`,
    ),
  );
  return isGood;
}

/** Files of random sizes and content, in some directories. @returns their hashes by path */
async function makeFiles(root: string): Promise<Map<string, string>> {
  const hashes = new Map<string, string>();
  for (let i = 0; i < FILE_COUNT; i++) {
    const directory = ['letters', 'photos', join('photos', 'summer')][i % 3] ?? '';
    const path = join(directory, `file-${i}`);
    const content = randomBytes(1 + ((i * 7919) % 300_000));
    await mkdir(join(folder, root, directory), { recursive: true });
    await writeFile(join(folder, root, path), content);
    hashes.set(path, hashOf(content));
  }
  return hashes;
}

/** @returns how many bytes the writer had taken when it was killed */
async function writeAndKill(): Promise<number> {
  const writer = spawn(process.execPath, [PROGRAM, 'write', 'disk.img'], {
    cwd: folder,
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const ended = once(writer, 'exit');
  writer.stdin.on('error', () => undefined); // It is going to be killed.
  let fed = 0;
  for await (const chunk of createReadStream(join(folder, 'other.img'))) {
    const isFull = !writer.stdin.write(chunk);
    // If it ends by itself, there is nothing to wait for: what it said is on standard error.
    if (isFull) await Promise.race([once(writer.stdin, 'drain').catch(() => ended), ended]);
    fed += chunk.length;
    if (fed >= KILL_AT || writer.exitCode !== null) break;
  }
  writer.kill('SIGKILL');
  const [status, signal] = await ended;
  if (signal !== 'SIGKILL') throw new Error(`the writer ended by itself, with ${status}`);
  return fed;
}

/** Takes the files out of an image's file system and counts those that have their hash. */
async function countIntact(image: string, to: string, hashes: ReadonlyMap<string, string>): Promise<number> {
  await mkdir(join(folder, to));
  const request = `rdump / ${to}`;
  if (image !== 'disk.img') command(`debugfs -R '${request}' ${image}`);
  spawnSync('debugfs', ['-R', request, image], { cwd: folder, env: environment });
  let intact = 0;
  for (const name of await readdir(join(folder, to), { recursive: true })) {
    const path = join(folder, to, name);
    if ((await stat(path)).isFile() && hashes.get(name) === hashOf(await readFile(path))) intact++;
  }
  return intact;
}

/** Runs a command of the story, with what it prints. */
function show(program: string, ...args: readonly string[]): string {
  command([program, ...args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg))].join(' '));
  const text = run(program, ...args);
  if (text !== '') say(...indent(text.trimEnd().split('\n')));
  return text;
}

function run(program: string, ...args: readonly string[]): string {
  const [file, all] = program === 'volsnap' ? [process.execPath, [PROGRAM, ...args]] : [program, args];
  return execFileSync(file, all, {
    cwd: folder,
    env: environment,
    encoding: 'utf8',
    maxBuffer: 64 * MEBIBYTE,
  });
}

function step(title: string): void {
  steps++;
  say('', styled('bold', `${steps}. ${title}`));
}

function command(text: string): void {
  say(`   ${styled('cyan', `$ ${text}`)}`);
}

function say(...lines: readonly string[]): void {
  for (const line of lines) console.log(line);
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `   ${line}`);
}

function hashOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

function mebibytes(bytes: number): string {
  return `${(bytes / MEBIBYTE).toFixed(1)} MiB`;
}
