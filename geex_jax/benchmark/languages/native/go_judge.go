// Package judge holds what a program must not reach: its number, the channel and the secret.
//
// Programs cannot import it: the import table of their compilation does not list it. Its init
// runs before any of theirs, because the `testing` that they import needs it.
package judge

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	index, channel, first, second int

	failed int32
)

func init() {
	var text [128]byte
	size := 0
	for size < len(text) {
		n, err := syscall.Read(0, text[size:])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		size += n
	}
	into := []*int{&index, &channel, &first, &second}
	words := strings.Fields(string(text[:size]))
	if len(words) != len(into) {
		os.Stderr.WriteString("judge: no orders on standard input\n")
		syscall.Exit(3)
	}
	for i, word := range words {
		*into[i], _ = strconv.Atoi(word)
	}
	text = [128]byte{}
	// The program's standard input is empty, and it cannot seek back in ours.
	syscall.Close(0)
	if null, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0); err == nil && null != 0 {
		syscall.Dup3(null, 0, 0)
		syscall.Close(null)
	}
	// Not dumpable: /proc/self/mem belongs to root, so the program cannot read its own memory.
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
}

// Index tells which program of the binary is to run.
func Index() int { return index }

// Fail notes that a test failed, in a place that no program can reset.
func Fail() { atomic.StoreInt32(&failed, 1) }

// Finish ends the process, with the proof if the tests ran to their end and none failed.
func Finish(passed bool) {
	if !passed || atomic.LoadInt32(&failed) != 0 {
		syscall.Exit(1)
	}
	syscall.Write(channel, []byte(strconv.Itoa(first^second)))
	syscall.Exit(0)
}
