// Command drain ends a server that is busy, and judges how it goes.
//
//	drain PAIL
//
// A thousand watches, a hundred unary calls a second and ten connections that say nothing are on it when it is told to stop.
// It has to be gone in time, no call that it acknowledged may be lost, each call that fails has to be UNAVAILABLE, and each
// watch has to be told that it drains, and from where it can be resumed. It ends with 0 where all is well, else with 1.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"example.com/pail-tests/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	watches     = 1_000
	connections = 4 // a connection has room for 1,000 long streams, but nobody needs that
	silent      = 10
	callsEvery  = 10 * time.Millisecond
	before      = 2 * time.Second
	timeout     = 5 * time.Second
	// For a machine that is busy with something else.
	margin = 2 * time.Second
)

func main() {
	if len(os.Args) != 2 {
		fmt.Println("usage: drain PAIL")
		os.Exit(2)
	}
	// A thousand watches that come at once are no overload here, however busy the machine is.
	pail, err := server.Start(os.Args[1], "--drain-timeout", timeout.String(), "--queue-time-max", "60s")
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	d := &drain{address: pail.Address, heard: map[int64]bool{}}
	took := d.run(pail)
	d.judge(took)
	fmt.Printf("gone after %.2f s; %d calls acknowledged, %d refused; %d watches ended as told\n",
		took.Seconds(), len(d.acknowledged), d.refused, d.ended)
	for i, broken := range d.broken {
		if i == 10 {
			fmt.Printf("and %d more\n", len(d.broken)-i)
			break
		}
		fmt.Println(broken)
	}
	if len(d.broken) > 0 {
		os.Exit(1)
	}
}

type drain struct {
	address string

	mutex        sync.Mutex
	acknowledged []int64
	refused      int
	ended        int
	heard        map[int64]bool // the values that the watch of entries was told of
	broken       []string
}

func (d *drain) breaks(format string, values ...any) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.broken = append(d.broken, fmt.Sprintf(format, values...))
}

func (d *drain) connect() *grpc.ClientConn {
	connection, err := pailclient.Connect(d.address, grpc.WithDisableRetry())
	if err != nil {
		panic(err)
	}
	return connection
}

// run lets everybody work, ends the server, and tells how long that took.
func (d *drain) run(pail *server.Server) time.Duration {
	var callers, watchers sync.WaitGroup
	for range silent {
		connection, err := net.Dial("tcp", d.address)
		if err != nil {
			panic(err)
		}
		defer connection.Close()
	}
	pails := make([]pailv1.BucketServiceClient, connections)
	for i := range pails {
		connection := d.connect()
		defer connection.Close()
		pails[i] = pailv1.NewBucketServiceClient(connection)
	}
	if _, err := pails[0].Create(context.Background(), &pailv1.CreateRequest{Bucket: "b"}); err != nil {
		panic(err)
	}
	var begun sync.WaitGroup
	for number := range watches {
		begun.Add(1)
		// It has begun, or has failed, which is told below.
		watchers.Go(func() { d.watch(pails[number%connections], number == 0, sync.OnceFunc(begun.Done)) })
	}
	begun.Wait()
	stopped := make(chan struct{})
	callers.Go(func() {
		for value := int64(1); ; value++ {
			select {
			case <-stopped:
				return
			case <-time.After(callsEvery):
				callers.Go(func() { d.put(pails[int(value)%connections], value) })
			}
		}
	})
	time.Sleep(before) // not for luck: so long are calls made
	begin := time.Now()
	if err := pail.Stop(); err != nil {
		panic(err)
	}
	if err := pail.Wait(); err != nil {
		d.breaks("the server ended with: %v", err)
	}
	took := time.Since(begin)
	close(stopped)
	callers.Wait()
	watchers.Wait()
	return took
}

func (d *drain) put(pail pailv1.BucketServiceClient, value int64) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+margin)
	defer cancel()
	_, err := pail.Put(ctx, &pailv1.PutRequest{
		Bucket: "b", Key: "k", Value: &pailv1.Value{Kind: &pailv1.Value_Integer{Integer: value}},
	})
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch status.Code(err) {
	case codes.OK:
		d.acknowledged = append(d.acknowledged, value)
	case codes.Unavailable:
		d.refused++
	default:
		d.broken = append(d.broken, fmt.Sprintf("a call failed with: %v", err))
	}
}

// watch watches, with entries or without, until it is told that the server goes.
func (d *drain) watch(pail pailv1.BucketServiceClient, entries bool, begun func()) {
	stream, err := pail.Watch(context.Background(), &pailv1.WatchRequest{Prefix: new(string), Entries: entries})
	draining, resume := false, uint64(0)
	for err == nil {
		var response *pailv1.WatchResponse
		if response, err = stream.Recv(); err != nil {
			break
		}
		if response.GetSynced() != nil {
			begun()
		}
		draining = draining || response.GetDraining() != nil
		resume = max(resume, response.GetRevision())
		for _, event := range response.GetEvents().GetEvents() {
			if put := event.GetPut(); put != nil {
				d.mutex.Lock()
				d.heard[put.GetEntry().GetValue().GetInteger()] = true
				d.mutex.Unlock()
			}
		}
	}
	begun()
	reason := pailclient.ErrorInfo(err).GetReason()
	if !draining || resume == 0 || status.Code(err) != codes.Unavailable || reason != "DRAINING" {
		d.breaks("a watch ended (told that it drains: %t, resume after: %d) with: %v", draining, resume, err)
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.ended++
}

func (d *drain) judge(took time.Duration) {
	if took > timeout+margin {
		d.breaks("it was gone after %v, and %v are allowed", took, timeout)
	}
	for _, value := range d.acknowledged {
		if !d.heard[value] {
			d.breaks("the Put of %d was acknowledged, and no watch was told of it", value)
		}
	}
	if len(d.acknowledged) < 100 {
		d.breaks("%d calls were acknowledged: too few to say anything", len(d.acknowledged))
	}
}
