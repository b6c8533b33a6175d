// The compiled load of the benchmarks: one measurement a run, its outcome as one line of JSON on stdout.
//
// It exists because a client in Python takes as much CPU time as the gateway that it measures.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

var modes = map[string]func(arguments []string) error{
	"unary":   unary,
	"stream":  stream,
	"batched": batched,
	"direct":  direct,
	"receive": receive,
	"peers":   holdPeers,
}

const usage = `usage: bench-client MODE [FLAG...]
  unary    N callers, each with one call at a time
  stream   one SendCustomMsgStream, K messages in a request
  batched  N callers that share one SendCustomMsgStream, as the client library's sender does
  direct   many sendcustommsg requests in flight on lightningd's own socket
  receive  N subscribers, and the peers (or the lightningd) whose messages they receive
  peers    peers that connect to a node and discard what they get, until stdin ends
bench-client MODE --help lists the flags of a mode.
`

func main() {
	debug.SetGCPercent(400) // its memory is small, and its CPU time is not what is measured
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench-client: %v\n", err)
		os.Exit(1)
	}
}

// printLine writes a value as one line of JSON.
func printLine(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}

// untilStdinEnds blocks until whoever started this program closes its end of stdin.
func untilStdinEnds() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}
