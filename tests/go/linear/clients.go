package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc"
)

// A name is used for so many calls, and then another one: what is cut small is checked fast, the unknown ones not least.
const callsOfName = 400

const (
	clients = 8
	names   = 4 // at a time
)

// load is what the clients do and what they were told, on one server.
type load struct {
	address string
	began   time.Time
	calls   atomic.Int64

	mutex   sync.Mutex
	history []porcupine.Operation
	lives   [names]uint64 // the last id that was seen of each
	namesOf map[uint64]string
	broken  []string // what is wrong beyond any order
}

func (l *load) breaks(format string, values ...any) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.broken = append(l.broken, fmt.Sprintf(format, values...))
}

// run lets the clients work until ctx is done.
func (l *load) run(ctx context.Context, seed uint64) {
	var group sync.WaitGroup
	for number := range clients {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(number)))
			one := &client{load: l, number: number, random: random}
			defer func() { one.connection.Close() }()
			one.connect()
			for ctx.Err() == nil {
				one.call()
			}
		})
	}
	group.Wait()
}

type client struct {
	*load
	number     int
	random     *rand.Rand
	connection *grpc.ClientConn
	pail       pailv1.BucketServiceClient
	puts       int64
}

func (c *client) connect() {
	if c.connection != nil {
		c.connection.Close()
	}
	// What is done again by itself would be two calls with one answer.
	connection, err := pailclient.Connect(c.address, grpc.WithDisableRetry())
	if err != nil {
		panic(err)
	}
	c.connection, c.pail = connection, pailv1.NewBucketServiceClient(connection)
}

// call makes one call, perhaps one that is given up, and notes what came of it.
func (c *client) call() {
	slot := c.random.IntN(names)
	in := input{
		Kind:     c.kind(),
		Name:     fmt.Sprintf("n%d-%d", slot, c.calls.Add(1)/(names*callsOfName)),
		Key:      c.random.IntN(keys),
		Expected: -1,
	}
	c.mutex.Lock()
	last := c.lives[slot]
	c.mutex.Unlock()
	if in.Kind != create && in.Kind != lookup && c.random.IntN(3) == 0 {
		in.ID = last
	}
	if in.Kind == put {
		c.puts++
		in.Value = int64(c.number)*1_000_000_000 + c.puts
		if c.random.IntN(4) == 0 {
			in.Expected = int64(c.random.IntN(6))
		}
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	switch c.random.IntN(60) {
	case 0: // a deadline that is met now and then
		ctx, cancel = context.WithTimeout(ctx, time.Duration(50+c.random.IntN(2_000))*time.Microsecond)
	case 1: // a connection that is cut in the middle
		connection := c.connection
		time.AfterFunc(time.Duration(c.random.IntN(1_000))*time.Microsecond, func() { connection.Close() })
		defer c.connect()
	default:
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
	}
	begin := time.Since(c.began)
	out := c.ask(ctx, in)
	end := time.Since(c.began)
	cancel()
	if out.Unknown && (in.Kind == get || in.Kind == lookup) {
		return // it has changed nothing and told nothing
	}
	op := porcupine.Operation{
		ClientId: c.number, Input: in, Call: int64(begin), Output: out, Return: int64(end),
	}
	if out.Unknown {
		op.Return = never
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if out.ID != 0 {
		c.lives[slot] = max(c.lives[slot], out.ID)
		c.namesOf[out.ID] = in.Name
	}
	c.history = append(c.history, op)
}

func (c *client) kind() kind {
	of := []kind{create, create, create, lookup, put, put, put, put, put, put, get, get, get, get, remove, stop}
	return of[c.random.IntN(len(of))]
}

// Each key's name.
func keyOf(number int) string { return "k" + strconv.Itoa(number) }

func detailOf(in input, number int) string { return fmt.Sprintf("client %d stops %s", number, in.Name) }

func (c *client) ask(ctx context.Context, in input) output {
	var id *uint64
	if in.ID != 0 {
		id = &in.ID
	}
	key := keyOf(in.Key)
	switch in.Kind {
	case create:
		answer, err := c.pail.Create(ctx, &pailv1.CreateRequest{Bucket: in.Name})
		bucket := answer.GetBucket()
		return c.heard(err, output{Created: answer.GetCreated(), ID: bucket.GetId(), Version: bucket.GetVersion()})
	case lookup:
		answer, err := c.pail.Lookup(ctx, &pailv1.LookupRequest{Bucket: in.Name})
		return c.heard(err, output{ID: answer.GetBucket().GetId(), Version: answer.GetBucket().GetVersion()})
	case put:
		value := &pailv1.Value{Kind: &pailv1.Value_Integer{Integer: in.Value}}
		request := &pailv1.PutRequest{Bucket: in.Name, BucketId: id, Key: key, Value: value}
		if in.Expected >= 0 {
			expected := uint64(in.Expected)
			request.ExpectedVersion = &expected
		}
		answer, err := c.pail.Put(ctx, request)
		return c.heard(err, output{ID: answer.GetBucketId(), Version: answer.GetVersion()})
	case get:
		answer, err := c.pail.Get(ctx, &pailv1.GetRequest{Bucket: in.Name, BucketId: id, Key: key})
		e := answer.GetEntry()
		return c.heard(err, output{ID: answer.GetBucketId(), Version: e.GetVersion(), Value: e.GetValue().GetInteger()})
	case remove:
		answer, err := c.pail.Delete(ctx, &pailv1.DeleteRequest{Bucket: in.Name, BucketId: id, Key: key})
		return c.heard(err, output{ID: answer.GetBucketId(), Version: answer.GetVersion(), Found: answer.GetEntry() != nil})
	default:
		request := &pailv1.StopRequest{
			Bucket: in.Name, BucketId: id, Reason: pailv1.Reason_REASON_KILLED, Detail: detailOf(in, c.number),
		}
		answer, err := c.pail.Stop(ctx, request)
		return c.heard(err, output{ID: answer.GetBucketId()})
	}
}

// heard is an answer, or what the error says.
func (c *client) heard(err error, out output) output {
	if err == nil {
		return out
	}
	info := pailclient.ErrorInfo(err)
	switch reason := info.GetReason(); reason {
	case "BUCKET_NOT_FOUND", "KEY_NOT_FOUND":
		return output{Reason: reason}
	case "VERSION_MISMATCH":
		actual, err := strconv.ParseUint(info.GetMetadata()["actual_version"], 10, 64)
		if err != nil {
			c.breaks("VERSION_MISMATCH without the version: %v", info)
		}
		return output{Reason: reason, Actual: actual}
	case "", "DEADLINE_EXCEEDED":
		return output{Unknown: true} // it was given up, by either side, or cut off
	default:
		c.breaks("nobody asked for %s: %v", reason, err)
		return output{Unknown: true}
	}
}
