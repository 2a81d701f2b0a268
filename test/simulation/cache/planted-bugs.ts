/** Bugs in the cache image that its simulation has to find; see `planted.ts`. */
import type { Edit } from '../planted/bug.js';

export interface CacheBug {
  readonly name: string;
  readonly edits: readonly Edit[];
}

const bug = (name: string, file: string, find: string, replace: string): CacheBug => ({
  name,
  edits: [{ file: `cache/${file}`, find, replace }],
});

export const CACHE_BUGS: readonly CacheBug[] = [
  bug(
    'a write is not noted in the image before it is made',
    'cache-store.ts',
    'if (isNamed || intents.hasLeft(first, end)) await intents.mark(first, end);',
    'if (isNamed && end < first) await intents.mark(first, end);',
  ),
  bug('what is noted is not flushed', 'intents.ts', '    await this.#device.flush();\n', ''),
  bug(
    'the nodes are not flushed before the header names them',
    'commits.ts',
    '    await device.flush();\n    await this.#file.update(\n',
    '    await this.#file.update(\n',
  ),
  bug(
    'a commit does not flush the backing',
    'identity.ts',
    'if (this.#backing.writable) await this.#backing.flush();',
    '',
  ),
  bug(
    'blocks of what leaves the tree are free at once',
    'catalog.ts',
    "    this.intents.left(first, count);\n    this.deferred.add(address, count, 'data');",
    "    this.intents.left(first, count);\n    this.map.release(address, count, 'data');",
  ),
  bug(
    'what was read before a write is cached after it',
    'ranges-in-use.ts',
    'if (isChange) other.void = true;',
    '',
  ),
  bug(
    'what is read during a write is cached',
    'ranges-in-use.ts',
    'if (other.isChange) range.void = true;',
    '',
  ),
  bug(
    'a reader does not notice that its blocks were given away',
    'cached-reads.ts',
    'if (commits.count !== before) return this.#backing.read(offset, target);',
    '',
  ),
  bug(
    'an eviction is not remembered until the next commit',
    'catalog.ts',
    '    this.intents.left(first, count);\n',
    '',
  ),
  bug(
    'what is noted is forgotten when a commit begins',
    'intents.ts',
    '    this.#intended.freeze();\n',
    '    this.#intended.now.fill(0);\n    this.#durable.fill(0);\n',
  ),
  bug(
    'regions in doubt are kept after a crash',
    'open.ts',
    'if (catalog.intents.has(from)) {',
    'if (from < 0) {',
  ),
  bug(
    'a node of the last commit is overwritten',
    'tree-nodes.ts',
    "    } else this.#deferred.add(node.address, NODE_BLOCKS, 'metadata');",
    '    } else this.#spare.push(node.address);',
  ),
  bug(
    'a write leaves what was cached',
    'cache-store.ts',
    '      this.#catalog.cut(extent, first, end);\n',
    '',
  ),
  bug(
    'the header is written before the image is whole',
    'commits.ts',
    '    await this.#file.update({ unclean: false, ...settled.header }, settled.extension);\n    await device.flush();\n',
    '',
  ),
];
