// Command linear lets clients and watchers loose on a server, and judges what they were told: whether the answers are those
// of one that does one thing at a time (with porcupine), and whether every Watch kept its promise.
//
//	linear [--seconds 30] [--seed N] [--history-events-max N] [--leave DIRECTORY] PAIL
//
// It starts the server itself. It ends with 0 where all is well, with 1 where the server is wrong (the history is then in the
// directory), with 2 where nothing can be said.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"example.com/pail-tests/server"
	"github.com/anishathalye/porcupine"
)

// How long the search for an order may take. It must come to an end: not to know is a failure.
const checkTime = 60 * time.Second

// op is a call and its answer, as they are judged.
type op struct {
	client int
	in     input
	out    output
}

func main() {
	seconds := flag.Float64("seconds", 30, "of load")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "the same seed makes the same calls")
	historyMax := flag.Int("history-events-max", 0, "what the server is given, if it is")
	leave := flag.String("leave", ".", "where the history of a failure goes")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	fmt.Printf("seed %d\n", *seed)
	var options []string
	if *historyMax > 0 {
		options = append(options, "--history-events-max", fmt.Sprint(*historyMax))
	}
	pail, err := server.Start(flag.Arg(0), options...)
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	l := &load{address: pail.Address, began: time.Now(), namesOf: map[uint64]string{}}
	w := watch(l, time.Duration(*seconds*float64(time.Second)), *seed)
	if err := errors.Join(pail.Stop(), pail.Wait()); err != nil {
		l.breaks("the server ended with: %v", err)
	}

	var history []op
	unknown := 0
	for _, each := range l.history {
		one := op{each.ClientId, each.Input.(input), each.Output.(output)}
		if one.out.Unknown {
			unknown++
		}
		history = append(history, one)
	}
	w.judge(history)
	begin := time.Now()
	result, info, model := check(l.history)
	fmt.Printf(
		"%d calls, %d of them without an answer; %s in %.1f s; %d resumes, %d too late; %d monitors; %d heartbeats\n",
		len(history), unknown, result, time.Since(begin).Seconds(), w.resumes.Load(), w.compacted.Load(),
		w.monitored.Load(), w.heartbeats.Load(),
	)
	if float64(w.heartbeats.Load()) < *seconds/3 {
		l.breaks("a quiet Watch was heard of %d times in %v s", w.heartbeats.Load(), *seconds)
	}
	if len(history) == 0 || w.resumes.Load() == 0 || w.monitored.Load() == 0 {
		fmt.Println("too little was done to say anything")
		os.Exit(2)
	}
	if result == porcupine.Ok && len(l.broken) == 0 {
		return
	}
	for i, broken := range l.broken {
		if i == 10 {
			fmt.Printf("and %d more\n", len(l.broken)-i)
			break
		}
		fmt.Println(broken)
	}
	if err := keep(*leave, l, info, model); err != nil {
		fmt.Println(err)
	}
	os.Exit(1)
}

// watch lets everyone work, and waits until those who watch have heard of all.
func watch(l *load, length time.Duration, seed uint64) *watchers {
	connection, err := pailclient.Connect(l.address)
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	w := &watchers{load: l, pail: pailv1.NewBucketServiceClient(connection)}
	hearing, stopHearing := context.WithCancel(context.Background())
	defer stopHearing()
	var everything, others sync.WaitGroup
	begun := make(chan struct{})
	everything.Go(func() { w.all(hearing, begun) })
	<-begun
	working, stopWorking := context.WithTimeout(context.Background(), length)
	defer stopWorking()
	others.Go(func() { w.quiet(working) })
	for number := range 4 {
		t := newTracker(fmt.Sprintf("resumed Watch %d", number), l.breaks)
		w.resumers = append(w.resumers, t)
		others.Go(func() { w.resume(working, t, rand.New(rand.NewPCG(seed, uint64(100+number)))) })
		others.Go(func() { w.monitor(working, rand.New(rand.NewPCG(seed, uint64(200+number)))) })
	}
	l.run(working, seed)
	others.Wait()
	if _, err := w.pail.Create(context.Background(), &pailv1.CreateRequest{Bucket: theLast}); err != nil {
		l.breaks("the last Create: %v", err)
	}
	// A Watch that runs delivers what was answered, if after the answer; by then it has.
	time.AfterFunc(10*time.Second, stopHearing)
	everything.Wait()
	return w
}

// keep leaves the history, and porcupine's picture of it.
func keep(directory string, l *load, info porcupine.LinearizationInfo, model porcupine.Model) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(directory, "history"))
	if err != nil {
		return err
	}
	defer file.Close()
	for _, each := range l.history {
		fmt.Fprintf(file, "%d %d %d %+v -> %+v\n", each.ClientId, each.Call, each.Return, each.Input, each.Output)
	}
	for _, broken := range l.broken {
		fmt.Fprintln(file, broken)
	}
	fmt.Printf("the history is in %s\n", file.Name())
	return porcupine.VisualizePath(model, info, filepath.Join(directory, "history.html"))
}
