/** The other half of the cycles that are always the same. */
import { testSeeds } from './seeds.js';

testSeeds(101, 30);
