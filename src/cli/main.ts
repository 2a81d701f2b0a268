#!/usr/bin/env node
/** The `volsnap` program. */
import { runProgram } from './program.js';

// The status is set, not exited with: what was written to a pipe must get there.
process.exitCode = await runProgram(process.argv.slice(2));
