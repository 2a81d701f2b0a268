/** 300 cycles that are always the same; more in `fixed-seeds-2.test.ts`, in another process. */
import { testSeeds } from './seeds.js';

testSeeds(1, 30);
