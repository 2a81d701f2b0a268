/** Cycles on devices that read and write at the call, now and then, as a file does whose pages are in memory. */
import { testSeeds } from './seeds.js';

testSeeds(1001, 20, { cycles: 10, faults: true, rot: false, atOnce: true });
