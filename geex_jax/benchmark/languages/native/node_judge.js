// Runs one program of HumanEval-X as `node test.js` would, and says whether its tests held.
//
//   node node_judge.js ADDON FOLDER   a fork server: each child gets a program (node_zygote.c)
//   node node_judge.js - FOLDER       judges the one program that standard input holds
//
// What the program under test may have patched is not used once it runs: all that is needed then
// was taken from the language before, and stands in closures and frozen tables.
'use strict';
const fs = require('fs');
const Module = require('module');
const util = require('util');
const vm = require('vm');
const { Script, compileFunction } = vm;
const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor, ownKeys } = Reflect;
const { create, freeze, hasOwn, setPrototypeOf } = Object;
const { format, inspect } = util;
const { listenerCount } = process;
const hasCapture = process.hasUncaughtExceptionCaptureCallback;
const { writeSync } = fs;
const { stringify } = JSON;
const { toString: functionText } = Function.prototype;
const setFlag = require('v8').setFlagsFromString;
const SYNTAX = 83, FAILED = 84; // exit statuses
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const [, , addon, folder] = process.argv;
const filename = `${folder}/test.js`;

// The trusted side -------------------------------------------------------------------------

let trusted; // serve() -> program; testsEnded(), fail(text), leave(status)

// Without the addon: the same in JavaScript. The proof is a number in a closure.
function ownProcess() {
  const input = fs.readFileSync(0);
  fs.ftruncateSync(0); // it holds the proof
  const at = (i) => input.readInt32LE(4 * i);
  const channel = at(0), proof = String(at(1) ^ at(2));
  const texts = [];
  for (let i = 0, from = 28; i < 4; from += at(3 + i++)) {
    texts.push(input.toString('utf8', from, from + at(3 + i)));
  }
  texts.push(process.pid);
  input.fill(0);
  const { reallyExit } = process;
  let ended = false, failed = false, early = false, done = false;
  const leave = (status) => apply(reallyExit, process, [status]);
  process.reallyExit = (status) => leave(status);
  const { exit } = process;
  process.exit = function (code) {
    early = true;
    return apply(exit, process, arguments.length ? [code] : []);
  };
  process.on('uncaughtExceptionMonitor', () => { early = true; });
  process.on('exit', () => {
    done = true;
    if (failed) leave(FAILED);
    if (ended && !early) writeSync(channel, proof);
  });
  return {
    serve: () => texts,
    testsEnded: () => { ended = true; },
    fail: (text) => {
      failed = true;
      if (done) writeSync(channel, '!'); // after the proof was given
      try { writeSync(2, text); } catch { /* it closed its standard error */ }
    },
    leave,
  };
}

// console.assert, as far as tests need it.
function assert(value, message, ...more) {
  if (value) return;
  let text = 'Assertion failed\n';
  try {
    if (message !== undefined) {
      text = `Assertion failed: ${typeof message === 'string' ? format(message, ...more)
        : format('', message, ...more).trimStart()}\n`;
    }
  } catch { /* it patched what format needs */ }
  trusted.fail(text);
}

// JSON.stringify without the toJSON that would make all values equal.
const { prototype: objects } = Object, { prototype: arrays } = Array;
function stringifyPlainly(value, replacer, space) {
  if (hasOwn(objects, 'toJSON') || hasOwn(arrays, 'toJSON')) {
    deleteProperty(objects, 'toJSON');
    deleteProperty(arrays, 'toJSON');
    if (hasOwn(objects, 'toJSON') || hasOwn(arrays, 'toJSON')) {
      trusted.fail('Assertion failed: the program changed JSON.stringify\n');
    }
  }
  return stringify(value, replacer, space);
}

// What tests call by name: Math_abs, JSON_stringify, ... (javascript.py rewrites them so.)
const table = create(null);
for (const space of [Math, JSON, Number, String, Array, Object]) {
  const name = typeof space === 'function' ? space.name : space[Symbol.toStringTag];
  for (const key of ownKeys(space)) {
    const value = getOwnPropertyDescriptor(space, key).value;
    if (typeof key === 'string' && typeof value === 'function') table[`${name}_${key}`] = value;
  }
}
table.console_assert = assert;
table.JSON_stringify = stringifyPlainly;
const home = freeze({ __proto__: null, tests: freeze(table) });

// Makes the named methods of arrays, strings and numbers what they are, for good.
function lock(names) {
  for (const name of names.split(' ')) {
    const key = name === 'iterator' ? Symbol.iterator : name;
    for (const { prototype } of [Array, String, Number]) {
      if (hasOwn(prototype, key)) {
        defineProperty(prototype, key, { writable: false, configurable: false });
      }
    }
  }
}

// Compiles the program. Returns its function, and whether that is a generator.
//
// The program and its tests become the body of one method, as they are of one function in node;
// so `super` gives the tests, and nobody else before them, what no program can shadow or reach.
// The method is a generator, since it has to tell whether it came to its end or returned before
// the tests: the last word in it is a `yield` that only its end reaches. A program that has one
// of these words itself becomes a plain method, and must compile as a script, in which no
// `return` can stand outside functions.
function compile(code, test, judged) {
  const whole = code + test;
  const node = () => compileFunction(whole, PARAMETERS, { filename, importModuleDynamically });
  const star = /yield|super/.test(whole) ? '' : '*';
  // Tests that a comment or a string could swallow must stand on their own.
  if (/`|\*\//.test(test)) new Script(code, { filename });
  if (!star) {
    node();
    new Script(whole, { filename });
  }
  const head = `${star}'<anonymous>'(${PARAMETERS}) {\n`;
  const body = `${code};const $geex=super.tests;${judged}\n${star && ';yield'}\n}`;
  let main;
  try {
    const script = new Script(`({ ${head}${body} })`,
      { filename, lineOffset: -1, importModuleDynamically });
    main = setPrototypeOf(script.runInThisContext(), home)['<anonymous>'];
  } catch (error) {
    node();
    throw error;
  }
  // Stray braces could end the method and begin another one.
  if (apply(functionText, main, []) !== head + body) {
    node();
    throw new SyntaxError("Unexpected token '}'");
  }
  return [main, star];
}

const importModuleDynamically = vm.constants
  ? vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER : (name) => import(name);
const { next } = Object.getPrototypeOf(function* () {}).prototype;

let pid;

function run() {
  let [code, test, judged, locked, own] = trusted.serve();
  pid = own;
  if (code[0] === '\ufeff') code = code.slice(1);
  if (code.startsWith('#!')) code = `//${code}`;
  let main, star, ended = true;
  try {
    [main, star] = compile(code, test, judged);
  } catch (error) {
    trusted.fail(`${error.stack}\n`);
    trusted.leave(SYNTAX);
  }
  if (locked) lock(locked);
  const { exports } = program;
  try {
    const result = apply(main, exports, [exports, program.require, program, filename, folder]);
    if (star) ended = !apply(next, result, []).done;
  } catch (error) {
    if (apply(listenerCount, process, ['uncaughtException']) || hasCapture()) throw error;
    // What node would do, in a tenth of the time.
    let text = 'Uncaught exception';
    try {
      text = error instanceof Error ? `${error.stack}` : `Uncaught ${inspect(error)}`;
    } catch { /* its error is a trap */ }
    trusted.fail(`${text}\n`);
    trusted.leave(1);
  }
  if (ended) trusted.testsEnded();
}

// Whatever was compiled once, children need not compile again.
function warmUp() {
  const test = 'const test = () => {\n  console.assert(f([1])[0] === 2)\n}\n\ntest()\n';
  const judged = test.replace('console.assert', '$geex.console_assert');
  for (const body of ['', '', 'return x.map((y) => y + 1) }', 'return x.map((y) => 2) }']) {
    try {
      const [main] = compile(`/* */\nconst f = (x) => {\n  ${body}\n`, test, judged);
      apply(main, {}, [{}, require, module, filename, folder]);
    } catch (error) {
      inspect(error.stack);
    }
  }
  console.log('%s', '', [1, { a: 'b' }]); // to nowhere
}

// The program's surroundings ---------------------------------------------------------------

const refuse = (what) => {
  throw new Error(`${what} is refused by the sandbox`);
};

// What would let a program look into the closures above, or run machine code.
function closeDoors() {
  const inspector = (() => { try { return require('inspector'); } catch { return null; } })();
  if (inspector) {
    for (const name of ['connect', 'connectToMainThread', 'post']) {
      inspector.Session.prototype[name] = () => refuse('the inspector');
    }
    inspector.open = () => refuse('the inspector');
  }
  const v8 = require('v8');
  v8.setFlagsFromString = (flags) => {
    if (/^--(stack[-_]size=\d+|expose[-_]gc)$/.test(flags)) setFlag(String(flags));
  };
  for (const name of ['getHeapSnapshot', 'writeHeapSnapshot', 'setHeapSnapshotNearHeapLimit']) {
    v8[name] = () => refuse('a heap snapshot');
  }
  require('worker_threads').Worker = class Worker {
    constructor() { refuse('a worker thread'); }
  };
  process.binding = process._linkedBinding = () => refuse('process.binding');
  process.dlopen = () => refuse('native code');
}

// The loader that `import()` has in node has to be asked for, and says that it is new.
function keepLoaderQuiet() {
  const { emitWarning } = process;
  process.emitWarning = function (text) {
    if (!`${text}`.includes('USE_MAIN_CONTEXT_DEFAULT_LOADER')) {
      return apply(emitWarning, process, arguments);
    }
  };
}

let program; // the module that the program is

function surroundings() {
  process.argv = [process.execPath, filename];
  process.execArgv = [];
  for (const name of Object.keys(process.env)) {
    if (!['PATH', 'HOME', 'LANG'].includes(name)) delete process.env[name];
  }
  process.env.HOME = folder;
  process.exitCode = undefined;
  delete require.cache[__filename];
  program = new Module(filename, null);
  program.filename = filename;
  program.paths = Module._nodeModulePaths(folder);
  defineProperty(process, 'pid', { get: () => pid, configurable: true, enumerable: true });
  process.mainModule = program;
  Module._cache[filename] = program;
  program.require = Module.createRequire(filename);
  program.id = '.';
}

if (addon !== '-') {
  const loaded = { exports: {} };
  process.dlopen(loaded, addon);
  trusted = loaded.exports;
  process.reallyExit = trusted.leave;
  // Made once, so that children have them: both are plain files there as well.
  process.stdout.write('');
  process.stderr.write('');
} else {
  trusted = ownProcess();
}
trusted = freeze({ ...trusted });
if (addon !== '-') warmUp();
closeDoors();
keepLoaderQuiet();
surroundings();
run();
