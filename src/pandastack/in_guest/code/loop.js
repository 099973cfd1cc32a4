// Node as a kernel: reads the path of a file with each cell's code from one descriptor, says how it ended to another.
// An answer is a line of JSON: status, and what was thrown or what the cell's last expression came to.
'use strict';
const fs = require('fs'), net = require('net'), path = require('path'), readline = require('readline');
const util = require('util'), vm = require('vm');
const [code, answers] = process.argv.slice(2).map(Number);
const isPromise = (value) => value !== null && typeof value === 'object' && typeof value.then === 'function';

globalThis.require = require('module').createRequire(path.join(process.cwd(), 'cell.js'));
globalThis.module = module;

// A script that ends itself ends the cell, and the names stay.
class Exit { constructor(code) { this.code = Number(code ?? process.exitCode ?? 0) & 255; } }
process.exit = (code) => { throw new Exit(code); };

let interrupt = () => {};
process.on('SIGINT', () => interrupt(new Error('interrupted')));
const report = (error) => { if (!(error instanceof Exit)) console.error(error); };
process.on('uncaughtException', report);
process.on('unhandledRejection', report);

// A script keeps its names for the next one. One with an await at its top is wrapped, and then only assignments stay.
function compile(text) {
  try {
    return new vm.Script(text, { filename: 'cell' });
  } catch (error) {
    if (!(error instanceof SyntaxError) || !/\bawait\b/.test(text)) throw error;
    try {
      return new vm.Script(`(async () => (${text}\n))()`, { filename: 'cell' });
    } catch {
      return new vm.Script(`(async () => { ${text}\n})()`, { filename: 'cell' });
    }
  }
}

async function run(text) {
  const value = compile(text).runInThisContext({ breakOnSigint: true, displayErrors: true });
  if (!isPromise(value)) return value;
  return Promise.race([value, new Promise((_, reject) => { interrupt = reject; })]);
}

function describe(error) {
  return error instanceof Error ? String(error.stack) : `Uncaught ${util.inspect(error)}`;
}

async function answer(file) {
  let said;
  try {
    const value = await run(fs.readFileSync(file, 'utf8'));
    said = value === undefined ? { status: 0 } : { status: 0, value: util.inspect(value) };
  } catch (error) {
    said = error instanceof Exit ? { status: error.code } : { status: 1, error: describe(error) };
  }
  interrupt = () => {};
  fs.writeSync(answers, JSON.stringify(said) + '\n');
}

let last = Promise.resolve();
// As a socket: a file's read would wait in a thread, and the end of the process for that thread.
readline.createInterface({ input: new net.Socket({ fd: code, readable: true, writable: false }) }).on('line', (file) => {
  last = last.then(() => answer(file));
});
