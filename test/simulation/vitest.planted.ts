/** The configuration of the test runner with a bug planted into the sources; see `unit-hunt.ts`. */
import { fileURLToPath } from 'node:url';
import { defineConfig, mergeConfig } from 'vitest/config';
import base from '../../vitest.config.js';
import type { Edit } from './planted/bug.js';
import { applied } from './sabotage.js';
import { EDITS_VARIABLE } from './unit-hunt.js';

const edits = JSON.parse(process.env[EDITS_VARIABLE] ?? '[]') as readonly Edit[];
const pathOf = ({ file }: Edit) => fileURLToPath(new URL(`../../src/${file}`, import.meta.url));

export default mergeConfig(
  base,
  defineConfig({
    plugins: [
      {
        name: 'planting',
        enforce: 'pre',
        transform(code: string, id: string) {
          const own = edits.filter((edit) => id === pathOf(edit));
          return own.length === 0 ? undefined : own.reduce((text, edit) => applied(text, edit), code);
        },
      },
    ],
  }),
);
