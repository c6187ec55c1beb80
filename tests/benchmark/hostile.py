"""Hostile programs in all six languages, each an answer to the task "add two numbers".

`@PORT@`, `@SECRET@`, `@VICTIM@` stand for what the test planted: a listener of its own on
loopback, a file, a process. Nothing else is ever aimed at.
"""

from __future__ import annotations

PROBLEMS = {
    "python": {
        "task_id": "Python/0", "prompt": "def add(x, y):\n", "declaration": "def add(x, y):\n",
        "test": "def check(add):\n    assert add(2, 3) == 5\n    assert add(1, 1) == 2\n\n"
                "check(add)\n",
    },
    "cpp": {
        "task_id": "CPP/0", "prompt": "#include<stdio.h>\nusing namespace std;\n"
                                      "int add(int x,int y){\n",
        "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (add(2, 3) == 5);\n"
                "    assert (add(1, 1) == 2);\n}\n",
    },
    "java": {
        "task_id": "Java/0",
        "prompt": "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n"
                  "    public int add(int x, int y) {\n",
        "test": "public class Main {\n    public static void main(String[] args) {\n"
                "        Solution s = new Solution();\n        List<Boolean> correct = Arrays.asList(\n"
                "                s.add(2, 3) == 5,\n                s.add(1, 1) == 2\n        );\n"
                "        if (correct.contains(false)) {\n"
                "            throw new AssertionError();\n        }\n    }\n}\n",
    },
    "javascript": {
        "task_id": "JavaScript/0", "prompt": "const add = (x, y) => {\n",
        "test": "const testAdd = () => {\n  console.assert(add(2, 3) === 5)\n"
                "  console.assert(JSON.stringify(add(1, 1)) === JSON.stringify(2))\n}\n\n"
                "testAdd()\n",
    },
    "go": {
        "task_id": "Go/0", "prompt": "\nfunc Add(x int, y int) int {\n", "import": "",
        "docstring": "", "declaration": "\nfunc Add(x int, y int) int {\n",
        # What real tasks do not import, a hostile answer could not use.
        "test_setup": 'package main\n\nimport (\n    "testing"\n'
                      '    "github.com/stretchr/testify/assert"\n    "net"\n    "os"\n'
                      '    "os/exec"\n    "runtime"\n    "syscall"\n    "time"\n)\n\n'
                      "var _, _, _ = net.Dial, os.Exit, exec.Command\n"
                      "var _, _, _ = runtime.Goexit, syscall.Kill, time.Sleep\n",
        "test": "func TestAdd(t *testing.T) {\n    assert := assert.New(t)\n"
                "    assert.Equal(5, Add(2, 3))\n    assert.Equal(2, Add(1, 1))\n}\n",
    },
    "rust": {
        "task_id": "Rust/0", "prompt": "\n/*\n Add two numbers\n*/\n",
        "declaration": "\nuse std::{cmp::{max, self}, collections::{HashSet, HashMap}};\n\n"
                       "fn add(x:i32, y:i32) -> i32{\n\n",
        "test": "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n #[test]\n    fn test_add() {\n"
                "        assert!(add(2, 3) == 5);\n        assert_eq!(add(1, 1), 2);\n    }\n\n}\n",
    },
}  # fmt: skip

GOOD = {
    "python": "    return x + y\n", "cpp": "    return x + y;\n}\n",
    "java": "        return x + y;\n    }\n}", "javascript": "  return x + y;\n}\n\n",
    "go": "    return x + y\n}\n\n", "rust": "    return x + y;\n}\n",
}  # fmt: skip
WRONG = {
    "python": "    return x - y\n", "cpp": "    return x - y;\n}\n",
    "java": "        return x - y;\n    }\n}", "javascript": "  return x - y;\n}\n\n",
    "go": "    return x - y\n}\n\n", "rust": "    return x - y;\n}\n",
}  # fmt: skip


def _python(*lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines) + "    return x + y\n"


def _python_bad(*lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines) + "    return 7\n"


def _cpp(body: str, before: str = "", result: str = "x + y") -> str:
    """`before` comes after the function: C++ needs declarations first, so it is a lambda's job."""
    return f"{before}    {body}\n    return {result};\n}}\n"


def _java(body: str, after: str = "", result: str = "x + y") -> str:
    return f"        {body}\n        return {result};\n    }}\n}}\n{after}"


def _js(body: str, result: str = "x + y") -> str:
    return f"  {body}\n  return {result};\n}}\n\n"


def _go(body: str, result: str = "x + y", after: str = "") -> str:
    return f"    {body}\n    return {result}\n}}\n\n{after}"


def _rust(body: str, result: str = "x + y", after: str = "") -> str:
    return f"    {body}\n    return {result};\n}}\n{after}"


# name -> code. What ends in "_bad" gives wrong answers and tries to pass all the same.
ATTACKS: dict[str, dict[str, str]] = {
    "python": {
        "fork bomb": _python("import os", "while True: os.fork()"),
        "daemon": _python("import os", "if os.fork() == 0: os.setsid(); [0 for _ in iter(int, 1)]"),
        "memory bomb": _python("a = []", "while True: a.append(bytearray(1 << 24))"),
        "shared memory bomb": _python("import mmap", "a = [mmap.mmap(-1, 1 << 28) for _ in "
                                      "range(64)]", "for m in a: m.write(b'x' * (1 << 28))"),
        "disk fill": _python("f = open('/tmp/x', 'wb')", "while True: f.write(b'x' * (1 << 20))"),
        "many files": _python("for i in range(10**6): open(f'/tmp/{i}', 'w').close()"),
        "output": _python("while True: print('x' * (1 << 16))"),
        "network": _python("import socket", "socket.create_connection(('127.0.0.1', @PORT@), 2)"),
        "read secret": _python("print(open('@SECRET@').read())"),
        "write secret": _python("open('@SECRET@', 'w').write('x')"),
        "symlink": _python("import os", "os.symlink('@SECRET@', '/tmp/l')",
                           "open('/tmp/l', 'w').write('x')"),
        "remove all": _python("import shutil", "shutil.rmtree('/usr')"),
        "kill victim": _python("import os", "os.kill(@VICTIM@, 9)"),
        "kill all": _python("import os", "os.kill(-1, 9)"),
        "kill parent": _python("import os", "os.kill(os.getppid(), 9)"),
        "ptrace": _python("import ctypes", "ctypes.CDLL(None).ptrace(16, @VICTIM@, 0, 0)"),
        "parent memory": _python("import os", "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)"),
        "mount": _python("import ctypes", "ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, "
                         "None)"),
        "sys.exit": _python_bad("import sys", "sys.exit(0)"),
        "os._exit": _python_bad("import os", "os._exit(0)"),
        "atexit": _python_bad("import atexit, os", "atexit.register(os._exit, 0)"),
        "fake success": _python_bad("print('passed')", "print('OK')"),
        "patch builtins": _python_bad("import builtins", "builtins.AssertionError = ValueError"),
        "equal to all": _python_bad("import sys", "sys.settrace(lambda *a: sys.exit(0))"),
        "spray descriptors": _python_bad(
            "import os", "for fd in range(3, 300):", "    try: os.write(fd, b'passed')",
            "    except OSError: pass"),
        "close all": _python_bad("import os", "os.closerange(0, 300)", "os._exit(0)"),
        "sleep": _python("import time", "time.sleep(1000)"),
        "spin": _python("while True: pass"),
        "recursion": _python("import sys", "sys.setrecursionlimit(10**9)",
                             "f = lambda: f()", "f()"),
        "compile bomb": _python("return (" + "(" * 300 + "1" + ")" * 300 + ")"),
        "constant bomb": _python("return 9 ** 9 ** 9 ** 9"),
        "threads": _python("import threading, time", "while True: threading.Thread(target="
                           "time.sleep, args=(99,)).start()"),
    },
    "cpp": {
        "fork bomb": "    extern int fork_it(); return fork_it();\n}\n#include <unistd.h>\n"
                     "int fork_it() { for (;;) fork(); }\n",
        "shell": "    extern int it(); return it() + x + y;\n}\n#include <stdlib.h>\n"
                 "int it() { return system(\"true\"); }\n",
        "memory bomb": "    for (;;) { char *p = new char[1 << 24]; for (int i = 0; i < 1 << 24; "
                       "i += 4096) p[i] = 1; }\n}\n",
        "disk fill": "    FILE *f = fopen(\"/tmp/x\", \"w\"); char b[65536] = {1}; for (;;) "
                     "if (fwrite(b, 1, 65536, f) != 65536) return -1;\n}\n",
        "output": "    for (;;) puts(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\");\n}\n",
        "network": "    extern int it(); return it();\n}\n#include <sys/socket.h>\n"
                   "#include <netinet/in.h>\n#include <arpa/inet.h>\nint it() { int s = socket(2, 1,"
                   " 0); sockaddr_in a = {}; a.sin_family = 2; a.sin_port = htons(@PORT@); "
                   "a.sin_addr.s_addr = inet_addr(\"127.0.0.1\"); return connect(s, (sockaddr *)&a,"
                   " sizeof a); }\n",
        "read secret": "    FILE *f = fopen(\"@SECRET@\", \"r\"); return fgetc(f);\n}\n",
        "kill victim": "    extern int it(); return it();\n}\n#include <signal.h>\n"
                       "int it() { return kill(@VICTIM@, 9); }\n",
        "kill parent": "    extern int it(); return it();\n}\n#include <signal.h>\n"
                       "#include <unistd.h>\nint it() { return kill(getppid(), 9); }\n",
        "ptrace": "    extern int it(); return it();\n}\n#include <sys/ptrace.h>\n"
                  "int it() { return ptrace(PTRACE_ATTACH, @VICTIM@, 0, 0); }\n",
        "exit": "    extern int it(); return it();\n}\n#include <stdlib.h>\n"
                "int it() { exit(0); }\n",
        "constructor": "    return 7;\n}\n#include <stdlib.h>\n__attribute__((constructor)) "
                       "void early() { _Exit(0); }\n",
        "define assert": "    return 7;\n}\n#define assert(x)\n#define __assert_fail(...) exit(0)\n",
        "define main": "    return 7;\n}\n#define main(...) real_main()\n"
                       "int other() { return 0; }\n",
        "own main": "    return 7;\n}\nint main() { return 0; }\n#if 0\n",
        "comment": "    return 7;\n}\nint main() { return 0; }\n/*\n",
        "abort caught": "    return 7;\n}\n#include <signal.h>\n#include <stdlib.h>\n"
                        "void leave(int) { _Exit(0); }\n"
                        "struct S { S() { signal(SIGABRT, leave); } } s;\n",
        "fake success": "    puts(\"passed\"); return 7;\n}\n",
        "spray descriptors": "    return 7;\n}\n#include <unistd.h>\nstruct S { S() { for (int i = 3;"
                             " i < 300; i++) write(i, \"passed\", 6); } } s;\n",
        "sleep": "    extern int it(); return it();\n}\n#include <unistd.h>\n"
                 "int it() { sleep(1000); return 5; }\n",
        "spin": "    for (volatile int i = 0;;) i = i + 1;\n}\n",
        "close stdout": "    fclose(stdout); fclose(stderr); return 7;\n}\n",
        "template bomb": "    return T<60>::v;\n}\n".replace("return T<60>::v;", "return 5;")
                         + "template <int N> struct A { A<N - 1> a; A<N - 1> b; long v; };\n"
                         "template <int N, class... T> struct B { typedef typename B<N - 1, T..., "
                         "T..., int>::t t; };\ntemplate <class... T> struct B<0, T...> { typedef int "
                         "t; };\nB<40>::t zero;\n",
        "constant bomb": "    static int big[1 << 29] = {1}; return big[x];\n}\n",
        "include device": "    return 5;\n}\n#include \"/dev/zero\"\n",
        "include random": "    return 5;\n}\n#include \"/dev/urandom\"\n",
        "include secret": "    return 5;\n}\n#include \"@SECRET@\"\n",
        "recursion": "    return add(x + 1, y) + add(x, y + 1);\n}\n",
    },
    "java": {
        "process": _java("try { Runtime.getRuntime().exec(\"/bin/true\"); } catch (java.io."
                         "IOException e) { throw new RuntimeException(e); }"),
        "threads": _java("while (true) new Thread(() -> { while (true) { } }).start();", result="0")
        .replace("        return 0;\n", ""),
        "memory bomb": _java("List<byte[]> l = new ArrayList<>(); while (true) l.add(new byte[1 << "
                             "24]);").replace("        return x + y;\n", ""),
        "direct memory": _java("List<Object> l = new ArrayList<>(); while (true) l.add(java.nio."
                               "ByteBuffer.allocateDirect(1 << 26).putInt(1));")
        .replace("        return x + y;\n", ""),
        "disk fill": _java("try (java.io.FileOutputStream f = new java.io.FileOutputStream(\"/tmp/x"
                           "\")) { while (true) f.write(new byte[1 << 20]); } catch (java.io."
                           "IOException e) { throw new RuntimeException(e); }")
        .replace("        return x + y;\n", ""),
        "output": _java("while (true) System.out.println(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\")"
                        ";").replace("        return x + y;\n", ""),
        "network": _java("try { new java.net.Socket(\"127.0.0.1\", @PORT@); } catch (java.io."
                         "IOException e) { throw new RuntimeException(e); }"),
        "read secret": _java("try { System.out.println(new String(java.nio.file.Files.readAllBytes("
                             "java.nio.file.Paths.get(\"@SECRET@\")))); } catch (java.io.IOException"
                             " e) { throw new RuntimeException(e); }"),
        "kill victim": _java("ProcessHandle.of(@VICTIM@L).get().destroyForcibly();"),
        "exit": _java("System.exit(0);", result="7"),
        "halt": _java("Runtime.getRuntime().halt(0);", result="7"),
        "hook": _java("Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime()."
                      "halt(0)));", result="7"),
        "shadow Arrays": _java("", result="7", after="class Arrays { static <T> List<T> asList(T... "
                               "a) { return new ArrayList<T>(); } }\n"),
        "shadow AssertionError": _java("", result="7", after="class AssertionError extends "
                                       "RuntimeException { AssertionError() { System.exit(0); } }\n"),
        "shadow List": _java("", result="7", after="class Boolean { }\n"),
        "own Main": _java("", result="7", after="class Main { public static void main(String[] a) { "
                          "} }\n"),
        "handler": _java("Thread.setDefaultUncaughtExceptionHandler((t, e) -> Runtime.getRuntime()."
                         "halt(0));", result="7"),
        "fake success": _java("System.out.println(\"passed\");", result="7"),
        "spray descriptors": _java(
            "for (int i = 3; i < 300; i++) try (java.io.FileOutputStream f = new java.io."
            "FileOutputStream(\"/proc/self/fd/\" + i)) { f.write(\"passed\".getBytes()); } catch "
            "(Exception e) { }", result="7"),
        "sleep": _java("try { Thread.sleep(1000000); } catch (InterruptedException e) { }"),
        "spin": _java("while (System.nanoTime() != 1L) { }"),
        "close stdout": _java("System.out.close(); System.err.close();", result="7"),
        "staying thread": _java("new Thread(() -> { while (true) { } }).start();", result="7"),
        "recursion": _java("return add(x, y + 1) + 1;").replace("        return x + y;\n", ""),
        "constant bomb": _java("", after="class Big { int[] a = {" + "1," * 70000 + "}; }\n"),
        "nesting bomb": _java("int z = " + "(" * 9000 + "1" + ")" * 9000 + ";"),
        "inference bomb": _java(
            "", after="class Deep { static <T> T f(T a, T b) { return a; } Object o = "
            + "f(" * 24 + "1, \"\"" + "), 1" * 0 + "".join(", f(1, \"\"))" for _ in range(23)) + ");"
            " }\n"),
    },
    "javascript": {
        "process": _js("require('child_process').execSync('true');"),
        "spawn": _js("require('child_process').spawn('sleep', ['99'], {detached: true}).unref();"),
        "workers": _js("const {Worker} = require('worker_threads'); for (;;) new Worker('for(;;){}',"
                       " {eval: true});"),
        "memory bomb": _js("const a = []; for (;;) a.push(new Array(1 << 20).fill(1.5));"),
        "buffer bomb": _js("const a = []; for (;;) a.push(Buffer.alloc(1 << 26, 1));"),
        "disk fill": _js("const fs = require('fs'); const f = fs.openSync('/tmp/x', 'w'); for (;;) "
                         "fs.writeSync(f, Buffer.alloc(1 << 20));"),
        "output": _js("for (;;) console.log('x'.repeat(1 << 12));"),
        "network": _js("require('net').connect(@PORT@, '127.0.0.1');"),
        "read secret": _js("throw require('fs').readFileSync('@SECRET@').toString();"),
        "write secret": _js("require('fs').writeFileSync('@SECRET@', 'x');"),
        "symlink": _js("const fs = require('fs'); fs.symlinkSync('@SECRET@', '/tmp/l'); "
                       "fs.writeFileSync('/tmp/l', 'x');"),
        "kill victim": _js("process.kill(@VICTIM@, 'SIGKILL');"),
        "kill parent": _js("process.kill(process.ppid, 'SIGKILL');"),
        "exit": _js("process.exit(0);", "7"),
        "reallyExit": _js("process.reallyExit(0);", "7"),
        "exit later": _js("process.on('exit', () => process.reallyExit(0));", "7"),
        "patch assert": _js("console.assert = () => {};", "7"),
        "new console": "  return 7;\n}\nglobalThis.console = {assert() {}, log() {}};\n",
        "shadow console": "  return 7;\n}\nvar console = {assert() {}, log() {}};\n",
        "const console": "  return 7;\n}\nconst console2 = console; console2.assert = () => {};\n",
        "patch JSON": _js("JSON.stringify = () => 'x'; console.assert = () => {};", "7"),
        "patch prototypes": _js("Function.prototype.call = () => {}; Function.prototype.apply = () =>"
                                " {}; Array.prototype.push = () => {};", "7"),
        "patch stderr": _js("process.stderr.write = () => true;", "7"),
        "fake success": _js("console.log('passed');", "7"),
        "spray descriptors": _js("const fs = require('fs'); for (let i = 3; i < 300; i++) try { "
                                 "fs.writeSync(i, 'passed'); } catch (e) { }", "7"),
        "close all": _js("const fs = require('fs'); for (let i = 0; i < 300; i++) try { "
                         "fs.closeSync(i); } catch (e) { }", "7"),
        "sleep": _js("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1e6);"),
        "timer": "  return x + y;\n}\nsetInterval(() => {}, 1000);\n",
        "spin": _js("for (;;) {}"),
        "recursion": _js("return add(x, y + 1) + 1;"),
        "regexp": _js("/^(a+)+$/.test('a'.repeat(40) + 'b');"),
        "constant bomb": _js("return 'x'.repeat(1 << 29).repeat(9).length;"),
    },
    "go": {
        "process": _go('if e := exec.Command("/bin/true").Run(); e != nil { panic(e) }'),
        "network": _go('if _, e := net.Dial("tcp", "127.0.0.1:@PORT@"); e != nil { panic(e) }'),
        "read secret": _go('if b, e := os.ReadFile("@SECRET@"); e != nil { panic(e) } else { '
                           "println(string(b)) }"),
        "write secret": _go('if e := os.WriteFile("@SECRET@", []byte("x"), 0600); e != nil { '
                            "panic(e) }"),
        "kill victim": _go("if e := syscall.Kill(@VICTIM@, 9); e != nil { panic(e) }"),
        "kill parent": _go("if e := syscall.Kill(os.Getppid(), 9); e != nil { panic(e) }"),
        "disk fill": _go('f, _ := os.Create("/tmp/x")\n    for { if _, e := f.Write(make([]byte, '
                         "1<<20)); e != nil { panic(e) } }", "x"),
        "spray descriptors": _go('for i := 3; i < 300; i++ { syscall.Write(i, []byte("passed")) }',
                                 "7"),
        "goroutines": _go("for { go func() { for { } }() }", "x"),
        "memory bomb": _go("var a [][]byte\n    for { b := make([]byte, 1<<24); for i := range b { "
                           "b[i] = 1 }; a = append(a, b) }", "x"),
        "output": _go('for { println("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx") }'),
        "exit": _go("os.Exit(0)", "7"),
        "init exit": _go("", "7", 'func init() { os.Exit(0) }\n'),
        "panic": _go('panic("passed")', "7"),
        "recover": _go("defer func() { recover() }()", "7"),
        "fake success": _go('println("PASS")', "7"),
        "sleep": _go("time.Sleep(1000 * time.Second)"),
        "spin": _go("for { }", "x"),
        "deadlock": _go("select { }", "x"),
        "recursion": _go("return Add(x, y+1) + 1"),
        "goexit": _go("runtime.Goexit()", "7"),
        "constant bomb": _go("const a = 1 << 500\n    const b = a << 500\n    var c [b]int\n    "
                             "_ = c"),
        "array bomb": _go("var c [1 << 40]int\n    c[x] = 1"),
    },
    "rust": {
        "process": _rust('std::process::Command::new("/bin/true").status().unwrap();'),
        "threads": _rust("loop { std::thread::spawn(|| loop {}); }", "0"),
        "memory bomb": _rust("let mut a: Vec<Vec<u8>> = Vec::new(); loop { a.push(vec![1u8; 1 << 24]"
                             "); if a.len() > 1 << 20 { break; } }"),
        "disk fill": _rust("use std::io::Write; let mut f = std::fs::File::create(\"/tmp/x\").unwrap("
                           "); loop { f.write_all(&[1u8; 65536]).unwrap(); if x == 9 { break; } }"),
        "output": _rust('loop { eprintln!("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"); if x == 9 { break; '
                        "} }"),
        "network": _rust('std::net::TcpStream::connect(("127.0.0.1", @PORT@)).unwrap();'),
        "read secret": _rust('std::fs::read("@SECRET@").unwrap();'),
        "write secret": _rust('std::fs::write("@SECRET@", "x").unwrap();'),
        "include secret": _rust('let s = include_str!("@SECRET@"); println!("{}", s);'),
        "exit": _rust("std::process::exit(0);", "7"),
        "abort": _rust("std::process::abort();", "7"),
        "hook": _rust("std::panic::set_hook(Box::new(|_| std::process::exit(0)));", "7"),
        "macro assert": _rust("", "7", "macro_rules! assert { ($($t:tt)*) => {} }\n"
                              "macro_rules! assert_eq { ($($t:tt)*) => {} }\n"),
        "panic any": _rust("std::panic::resume_unwind(Box::new(0));", "7"),
        "own main": _rust("", "7", "fn main() { }\n"),
        "close module": _rust("", "7", "} mod x {\n"),
        "fake success": _rust('println!("test result: ok. 1 passed");', "7"),
        "sleep": _rust("std::thread::sleep(std::time::Duration::from_secs(1000));"),
        "spin": _rust("loop { if x == 9 { break; } }"),
        "recursion": _rust("if x < 1 << 30 { return add(x, y + 1 - 1) + 1; }"),
        "macro bomb": _rust("", "x + y", "macro_rules! b { ($($t:tt)*) => { b!($($t)* $($t)*); } }\n"
                            "b!(x);\n"),
        "const bomb": _rust("", "x + y", "const fn f(n: u64) -> u64 { let mut i = 0; while i < n { "
                            "i += 1; } i }\nconst A: u64 = f(u64::MAX);\nfn g() -> u64 { A }\n"),
        "type bomb": _rust("", "x + y", "struct A<T>(T);\ntrait B { fn b(&self); }\nimpl<T> B for "
                           "A<T> where A<A<T>>: B { fn b(&self) { A(A(0)).b() } }\n"
                           "fn g() { A(0).b() }\n"),
        "constructor": _rust("", "7", "#[used]\n#[link_section = \".init_array\"]\nstatic C: extern "
                             "\"C\" fn() = { extern \"C\" fn c() { std::process::exit(0) } c };\n"),
    },
}  # fmt: skip
