/** Seeds that nobody has seen before: they follow from the commit, so that every change brings others. */
import { execFileSync } from 'node:child_process';
import { testSeeds } from './seeds.js';

/** Of a tree that is no repository: as good as any other number. */
const NO_COMMIT = '5eed5eed';

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return NO_COMMIT;
  }
}

const first = Number.parseInt(commit().slice(0, 7), 16);
console.log(`fresh seeds from ${first}; again: npm run simulate -- --seed ${first} --runs 40`);
testSeeds(first, 40);
