/** 1,000 cycles that are always the same; with those of `fixed-seeds-2.test.ts`, in another process, 2,000. */
import { testSeeds } from './seeds.js';

testSeeds(1, 100);
