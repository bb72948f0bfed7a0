// Command rolling works with a server that is restarted again and again, and judges what that is like.
//
//	rolling ADDRESS SECONDS
//
// Workers create buckets, put into them and get from them, and create again what is gone (NOT_FOUND), by the retry policy that the
// clients ship; a Put, which that leaves to its users, they do again. A Pipeline and a Link are opened again where they end. None may
// see an error of transport, and a watch has to be told of each bucket that a worker lost, and why. It ends with 0 where all is well, else with 1.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	workers  = 16
	pause    = 20 * time.Millisecond
	deadline = 10 * time.Second
	prefix   = "rolling/"
	// What the policy does with a Create, a Put has from here.
	attempts = 5
	// A watch that is told of a death is told of it by then.
	patience = 10 * time.Second
)

type rolling struct {
	client pailv1.BucketServiceClient

	calls, again, streams atomic.Int64

	mutex  sync.Mutex
	lost   map[uint64]string // buckets that a worker found gone, by their ids
	told   map[uint64]pailv1.Reason
	broken []string
}

func main() {
	if len(os.Args) != 3 {
		fmt.Println("usage: rolling ADDRESS SECONDS")
		os.Exit(2)
	}
	seconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	connection, err := pailclient.Connect(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	defer connection.Close()
	r := &rolling{client: pailv1.NewBucketServiceClient(connection), lost: map[uint64]string{}, told: map[uint64]pailv1.Reason{}}
	r.run(time.Duration(seconds) * time.Second)
	fmt.Printf("%d calls, %d puts done again, %d streams opened; %d buckets were lost, and all were told of\n",
		r.calls.Load(), r.again.Load(), r.streams.Load(), len(r.lost))
	for i, broken := range r.broken {
		if i == 10 {
			fmt.Printf("and %d more\n", len(r.broken)-i)
			break
		}
		fmt.Println("WRONG", broken)
	}
	if len(r.broken) > 0 {
		os.Exit(1)
	}
}

func (r *rolling) breaks(format string, values ...any) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.broken = append(r.broken, fmt.Sprintf(format, values...))
}

func (r *rolling) run(length time.Duration) {
	watching, stop := context.WithCancel(context.Background())
	var watcher, others sync.WaitGroup
	watcher.Go(func() { r.watch(watching) })
	working, end := context.WithTimeout(context.Background(), length)
	defer end()
	for number := range workers {
		others.Go(func() { r.work(working, fmt.Sprint(prefix, number)) })
	}
	others.Go(func() { r.pipeline(working) })
	others.Go(func() { r.link(working) })
	others.Wait()
	for until := time.Now().Add(patience); len(r.untold()) > 0 && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	watcher.Wait()
	for id, bucket := range r.untold() {
		r.breaks("%s (%d) was lost, and the watch was not told", bucket, id)
	}
	if len(r.lost) == 0 {
		r.breaks("no bucket was lost: the server was not restarted")
	}
}

func (r *rolling) untold() map[uint64]string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	untold := map[uint64]string{}
	for id, bucket := range r.lost {
		if _, ok := r.told[id]; !ok {
			untold[id] = bucket
		}
	}
	return untold
}

// work creates a bucket, and puts and gets until it is gone; then it does so again.
func (r *rolling) work(ctx context.Context, bucket string) {
	for ctx.Err() == nil {
		created := r.create(bucket)
		for created != nil && ctx.Err() == nil {
			time.Sleep(pause)
			if !r.put(bucket, created.GetId()) || !r.get(bucket, created.GetId()) {
				r.mutex.Lock()
				r.lost[created.GetId()] = bucket
				r.mutex.Unlock()
				created = nil
			}
		}
	}
}

func (r *rolling) create(bucket string) *pailv1.Bucket {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r.calls.Add(1)
	created, err := r.client.Create(ctx, &pailv1.CreateRequest{Bucket: bucket})
	if err != nil {
		r.breaks("Create: %v", err)
	}
	return created.GetBucket()
}

// put says whether the bucket lives.
func (r *rolling) put(bucket string, id uint64) bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	value := &pailv1.Value{Kind: &pailv1.Value_Integer{Integer: time.Now().UnixNano()}}
	wait := 100 * time.Millisecond
	for attempt := 1; ; attempt++ {
		r.calls.Add(1)
		_, err := r.client.Put(ctx, &pailv1.PutRequest{Bucket: bucket, BucketId: &id, Key: "k", Value: value})
		// The same value once more is the same: that is for the user to know, and here it is so.
		if status.Code(err) == codes.Unavailable && attempt < attempts {
			r.again.Add(1)
			time.Sleep(wait)
			wait *= 2
			continue
		}
		return r.lives("Put", err)
	}
}

func (r *rolling) get(bucket string, id uint64) bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r.calls.Add(1)
	_, err := r.client.Get(ctx, &pailv1.GetRequest{Bucket: bucket, BucketId: &id, Key: "k"})
	return r.lives("Get", err)
}

func (r *rolling) lives(what string, err error) bool {
	switch status.Code(err) {
	case codes.OK:
		return true
	case codes.NotFound:
		return false
	default:
		r.breaks("%s: %v", what, err)
		return false
	}
}

// again is whether a stream that ended so is to be opened again; anything but the server's going is wrong.
func (r *rolling) mayGoOn(what string, err error) {
	if code := status.Code(err); code != codes.Unavailable {
		r.breaks("%s: %v", what, err)
	}
	time.Sleep(100 * time.Millisecond)
}

// pipeline has each message answered before it sends the next, and knows what was done.
func (r *rolling) pipeline(ctx context.Context) {
	for ctx.Err() == nil {
		stream, cancel := context.WithCancel(context.Background())
		r.streams.Add(1)
		pipeline, err := r.client.Pipeline(stream)
		for err == nil && ctx.Err() == nil {
			time.Sleep(pause)
			op := &pailv1.PipelineOp{Id: 1, Op: &pailv1.PipelineOp_Create{Create: &pailv1.CreateRequest{Bucket: "pipeline"}}}
			// What Send says of an error is only that there is one: Recv has it.
			_ = pipeline.Send(&pailv1.PipelineRequest{Ops: []*pailv1.PipelineOp{op}})
			_, err = pipeline.Recv()
		}
		if err != nil {
			r.mayGoOn("Pipeline", err)
		}
		cancel()
	}
}

// link holds a bucket, and holds it again.
func (r *rolling) link(ctx context.Context) {
	for ctx.Err() == nil {
		stream, cancel := context.WithCancel(context.Background())
		r.streams.Add(1)
		link, err := r.client.Link(stream)
		ask := &pailv1.LinkBucket{Bucket: "link", Mode: pailv1.LinkMode_LINK_MODE_CREATE_IF_ABSENT}
		requests := []*pailv1.LinkRequest{{Id: 1, Request: &pailv1.LinkRequest_Link{Link: ask}}}
		for err == nil && ctx.Err() == nil {
			for _, request := range requests {
				_ = link.Send(request)
			}
			requests = []*pailv1.LinkRequest{{Id: 2, Request: &pailv1.LinkRequest_Ping{Ping: &pailv1.LinkPing{}}}}
			if _, err = link.Recv(); err == nil {
				time.Sleep(2 * pause)
			}
		}
		if err != nil {
			r.mayGoOn("Link", err)
		}
		cancel()
	}
}

// watch takes note of what it is told.
func (r *rolling) watch(ctx context.Context) {
	of := prefix
	watch := pailclient.ResumingWatch{Client: r.client, Request: &pailv1.WatchRequest{Prefix: &of}, OnReset: func() {}}
	for event, err := range watch.Events(ctx) {
		if err != nil {
			if ctx.Err() == nil {
				r.breaks("Watch: %v", err)
			}
			return
		}
		if down := event.GetDown(); down != nil {
			r.mutex.Lock()
			r.told[down.GetBucketId()] = down.GetReason()
			r.mutex.Unlock()
			if down.GetReason() != pailv1.Reason_REASON_SHUTDOWN {
				r.breaks("%s went down with %v", down.GetBucket(), down.GetReason())
			}
		}
	}
}
