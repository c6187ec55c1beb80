// Package testing stands in for the real one: the same tests pass and fail, and a binary starts
// and links faster without flags, profiles and benchmarks.
package testing

import (
	"fmt"
	"judge"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

const mostText = 1 << 16 // of what one test logs

// TB is what tests and benchmarks share.
type TB interface {
	Cleanup(func())
	Error(args ...any)
	Errorf(format string, args ...any)
	Fail()
	FailNow()
	Failed() bool
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Helper()
	Log(args ...any)
	Logf(format string, args ...any)
	Name() string
	Setenv(key, value string)
	Skip(args ...any)
	SkipNow()
	Skipf(format string, args ...any)
	Skipped() bool
	TempDir() string
	private()
}

type common struct {
	mutex    sync.Mutex
	name     string
	parent   *common
	text     strings.Builder
	cleanups []func()

	failed, skipped, ended bool // ended: by FailNow or SkipNow
}

// T is a test's state.
type T struct{ common }

// B is a benchmark's state; benchmarks are compiled, not run.
type B struct {
	common
	N int
}

// M is for TestMain, which is compiled, not run.
type M struct{}

// InternalTest is a test by name.
type InternalTest struct {
	Name string
	F    func(*T)
}

func (c *common) private() {}

func (c *common) log(text string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.text.Len() < mostText {
		text = strings.TrimSuffix(text, "\n")
		c.text.WriteString("    " + place() + strings.ReplaceAll(text, "\n", "\n    ") + "\n")
	}
}

// place is where the program called; "" in the middle of `assert`, which tells it itself.
func place() string {
	for skip := 3; ; skip++ {
		pc, file, line, ok := runtime.Caller(skip)
		if !ok {
			return ""
		}
		name := runtime.FuncForPC(pc).Name()
		if strings.HasPrefix(name, "testing.") {
			continue
		}
		if strings.HasPrefix(name, "github.com/stretchr/testify/") {
			return ""
		}
		return fmt.Sprintf("%s:%d: ", file[strings.LastIndex(file, "/")+1:], line)
	}
}

func (c *common) Fail() {
	judge.Fail()
	for at := c; at != nil; at = at.parent {
		at.mutex.Lock()
		at.failed = true
		at.mutex.Unlock()
	}
}

func (c *common) Failed() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.failed
}

func (c *common) end() {
	c.ended = true
	runtime.Goexit()
}

func (c *common) FailNow()                          { c.Fail(); c.end() }
func (c *common) Log(args ...any)                   { c.log(fmt.Sprintln(args...)) }
func (c *common) Logf(format string, args ...any)   { c.log(fmt.Sprintf(format, args...)) }
func (c *common) Error(args ...any)                 { c.Fail(); c.log(fmt.Sprintln(args...)) }
func (c *common) Errorf(format string, args ...any) { c.Fail(); c.log(fmt.Sprintf(format, args...)) }
func (c *common) Fatal(args ...any)                 { c.Error(args...); c.end() }
func (c *common) Fatalf(format string, args ...any) { c.Errorf(format, args...); c.end() }
func (c *common) Skip(args ...any)                  { c.Log(args...); c.SkipNow() }
func (c *common) Skipf(format string, args ...any)  { c.Logf(format, args...); c.SkipNow() }
func (c *common) SkipNow()                          { c.skipped = true; c.end() }
func (c *common) Skipped() bool                     { return c.skipped }
func (c *common) Helper()                           {}
func (c *common) Name() string                      { return c.name }

func (c *common) Cleanup(f func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.cleanups = append(c.cleanups, f)
}

func (c *common) Setenv(key, value string) {
	old, was := os.LookupEnv(key)
	if err := os.Setenv(key, value); err != nil {
		c.Fatalf("cannot set environment variable: %v", err)
	}
	c.Cleanup(func() {
		if os.Unsetenv(key); was {
			os.Setenv(key, old)
		}
	})
}

func (c *common) TempDir() string {
	dir, err := os.MkdirTemp("", "test")
	if err != nil {
		c.Fatalf("TempDir: %v", err)
	}
	c.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Parallel does nothing: tests run one after the other.
func (t *T) Parallel() {}

// Deadline tells that there is none: the limit is on CPU time, from outside.
func (t *T) Deadline() (deadline time.Time, ok bool) { return }

// Run runs a subtest.
func (t *T) Run(name string, f func(t *T)) bool {
	return runTest(&t.common, t.name+"/"+strings.ReplaceAll(name, " ", "_"), f)
}

func (b *B) ResetTimer()               {}
func (b *B) StartTimer()               {}
func (b *B) StopTimer()                {}
func (b *B) ReportAllocs()             {}
func (b *B) SetBytes(int64)            {}
func (b *B) Run(string, func(*B)) bool { return true }

// Run does nothing.
func (m *M) Run() int { return 0 }

// Short tells whether -test.short was given.
func Short() bool { return false }

// Verbose tells whether -test.v was given.
func Verbose() bool { return false }

// runTest runs one test in a goroutine of its own; whether it did not fail.
func runTest(parent *common, name string, f func(*T)) bool {
	t := &T{common{name: name, parent: parent}}
	done := make(chan bool)
	go func() {
		returned := false
		defer func() {
			if !returned && !t.ended {
				// A panic, which goes on and ends the process. Or a Goexit of the program's own,
				// after which nobody wakes the waiting: the runtime says so and ends it.
				t.report("")
				return
			}
			returned, t.ended = false, false
			defer func() {
				t.report("--- FAIL: " + t.name + "\n")
				if returned || t.ended {
					close(done)
				}
			}()
			t.clean()
			returned = true
		}()
		f(t)
		returned = true
	}()
	<-done
	return !t.Failed()
}

func (c *common) clean() {
	for len(c.cleanups) > 0 {
		last := len(c.cleanups) - 1
		f := c.cleanups[last]
		c.cleanups = c.cleanups[:last]
		f()
	}
}

func (c *common) report(title string) {
	if c.Failed() {
		os.Stderr.WriteString(title + c.text.String())
	}
}

// RunTests runs the tests in order; whether there were some and none failed.
func RunTests(tests []InternalTest) bool {
	passed := len(tests) > 0
	if !passed {
		os.Stderr.WriteString("testing: no tests to run\n")
	}
	for _, test := range tests {
		passed = runTest(nil, test.Name, test.F) && passed
	}
	return passed
}
