// Command conformance holds a pail server, and this client, to the contract: the steps of ../../../CONFORMANCE.md, a
// line each.
//
//	conformance ADDRESS                  the steps; PAIL_SMALL and PAIL_BIN come from the runner
//	conformance --link ADDRESS BUCKET    links the bucket, says so, and waits to be killed: step 6
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

const stepDeadline = 60 * time.Second

var steps = []struct {
	words string
	run   func(ctx context.Context, address string)
}{
	{"session", session},
	{"values", values},
	{"reasons", reasons},
	{"watch by name", watchByName},
	{"watch by prefix", watchByPrefix},
	{"link closed and link killed", links},
	{"server restart", serverRestart},
	{"pipeline", pipeline},
	{"deadline and cancel", deadlineAndCancel},
}

func main() {
	switch arguments := os.Args[1:]; {
	case len(arguments) == 3 && arguments[0] == "--link":
		linkAndWait(arguments[1], arguments[2])
	case len(arguments) == 1:
		os.Exit(runAll(arguments[0]))
	default:
		fmt.Fprintln(os.Stderr, "usage: conformance ADDRESS")
		os.Exit(2)
	}
}

func runAll(address string) int {
	passed := 0
	for index, step := range steps {
		if why := outcome(step.run, address); why != "" {
			fmt.Printf("not ok %d %s: %s\n", index+1, step.words, why)
			continue
		}
		passed++
		fmt.Printf("ok %d %s\n", index+1, step.words)
	}
	fmt.Printf("conformance: go: %d of %d\n", passed, len(steps))
	if passed != len(steps) {
		return 1
	}
	return 0
}

// Why a step failed; empty if it did not. A check that fails panics with its words, and clean-up is deferred.
func outcome(step func(context.Context, string), address string) (why string) {
	ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
	defer cancel()
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case wrong:
			why = string(failure)
		default:
			panic(failure)
		}
	}()
	step(ctx, address)
	return ""
}
