package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
)

const shortDeadline = 300 * time.Millisecond

// How a watch ends; what it tells until then is read away.
func endOf(watch grpc.ServerStreamingClient[pailv1.WatchResponse], err error) codes.Code {
	for err == nil {
		_, err = watch.Recv()
	}
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	return status.Code(err)
}

// Step 4.
func watchByName(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	lives := create(ctx, client, "lives")
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Buckets: []string{"lives", "missing"}}))
	monitors := must(watch.Recv()).GetStarted().GetMonitors()
	same("the number of monitors", len(monitors), 2)
	first, second := monitors[0].GetRef(), monitors[1].GetRef()
	sameMessage("the first monitor", monitors[0], &pailv1.Monitor{Ref: first, Bucket: "lives", BucketId: lives.GetId()})
	sameMessage("the second monitor", monitors[1], &pailv1.Monitor{Ref: second, Bucket: "missing"})
	holds("each has a ref of its own", first != 0 && second != 0 && first != second)

	var downs []event
	for isSynced := false; len(downs) == 0 || !isSynced; {
		response := must(watch.Recv())
		isSynced = isSynced || response.GetSynced() != nil
		downs = append(downs, toldBy(response)...)
	}
	stopFor(ctx, client, "lives", pailv1.Reason_REASON_CRASHED, "why")
	err := error(nil)
	for err == nil {
		var response *pailv1.WatchResponse
		response, err = watch.Recv()
		downs = append(downs, toldBy(response)...)
	}
	same("the end of the watch", err, io.EOF)

	same("the number of DOWNs", len(downs), 2)
	noproc := event{"DOWN", second, "missing", 0, downs[0].revision, false, "REASON_NOPROC", downs[0].detail}
	same("NOPROC for the missing one", downs[0], noproc)
	down := event{"DOWN", first, "lives", lives.GetId(), downs[1].revision, false, "REASON_CRASHED", "why"}
	same("one DOWN for the other", downs[1], down)
}

// What an event says of what happened.
type event struct {
	what      string
	ref       uint64
	bucket    string
	id        uint64
	revision  uint64
	isInitial bool
	reason    string
	detail    string
}

func told(happened *pailv1.Event) event {
	if created := happened.GetCreated(); created != nil {
		return event{
			what: "CREATED", ref: created.GetRef(), bucket: created.GetBucket(), id: created.GetBucketId(),
			revision: created.GetRevision(), isInitial: created.GetInitial(),
		}
	}
	down := happened.GetDown()
	return event{
		what: "DOWN", ref: down.GetRef(), bucket: down.GetBucket(), id: down.GetBucketId(), revision: down.GetRevision(),
		reason: down.GetReason().String(), detail: down.GetDetail(),
	}
}

func toldBy(response *pailv1.WatchResponse) (events []event) {
	for _, happened := range response.GetEvents().GetEvents() {
		events = append(events, told(happened))
	}
	return events
}

func creation(bucket *pailv1.Bucket) event {
	return event{what: "CREATED", bucket: bucket.GetName(), id: bucket.GetId(), revision: bucket.GetCreateRevision()}
}

func initial(bucket *pailv1.Bucket) event {
	event := creation(bucket)
	event.isInitial = true
	return event
}

func death(bucket *pailv1.Bucket, revision uint64, reason, detail string) event {
	return event{
		what: "DOWN", bucket: bucket.GetName(), id: bucket.GetId(), revision: revision, reason: reason, detail: detail,
	}
}

// A resuming watch as its user has it: each event with the registry and the resets that were told before it.
type news struct {
	event
	registryID string
	resets     int
	err        error
}

type following chan news

func follow(ctx context.Context, client pailv1.BucketServiceClient, request *pailv1.WatchRequest) following {
	following, resets := make(following, 100), 0
	watch := pailclient.ResumingWatch{Client: client, Request: request, OnReset: func() { resets++ }}
	go func() {
		for happened, err := range watch.Events(ctx) {
			event := told(happened)
			// Each stream has refs of its own, and a prefix has none.
			event.ref = 0
			following <- news{event, watch.RegistryID, resets, err}
		}
	}()
	return following
}

// The next that comes.
func (f following) next(what string) news {
	select {
	case news := <-f:
		if news.err != nil {
			fail("%s: the watch failed: %v", what, news.err)
		}
		return news
	case <-time.After(soon):
		fail("%s: no event came", what)
		panic("unreachable")
	}
}

// The next must be this.
func (f following) tells(what string, wanted event) news {
	news := f.next(what)
	same(what, news.event, wanted)
	return news
}

// Step 5.
func watchByPrefix(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	prefixInOrder(ctx, client)

	line := newLine(address)
	defer line.close()
	_, far, closeFar := connect(line.address)
	defer closeFar()
	prefixOverACut(ctx, client, far, line)
	prefixOverEveryEnd(ctx)
}

func prefixInOrder(ctx context.Context, client pailv1.BucketServiceClient) {
	one, two := create(ctx, client, "p/1"), create(ctx, client, "p/2")
	create(ctx, client, "other")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := "p/"
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Prefix: &prefix}))
	holds("it begins with started", must(watch.Recv()).GetStarted() != nil)
	var snapshot []event
	response := must(watch.Recv())
	for ; response.GetSynced() == nil; response = must(watch.Recv()) {
		snapshot = append(snapshot, toldBy(response)...)
	}
	same("the snapshot", snapshot, []event{initial(one), initial(two)})
	holds("synced has a revision", response.GetRevision() >= two.GetCreateRevision())

	three := create(ctx, client, "p/3")
	revision := stopFor(ctx, client, "p/1", pailv1.Reason_REASON_KILLED, "why")
	var live []event
	for len(live) < 2 {
		live = append(live, toldBy(must(watch.Recv()))...)
	}
	happened := []event{creation(three), death(one, revision, "REASON_KILLED", "why")}
	same("what happens, in the order of revisions", live, happened)
	stop(ctx, client, "other")
}

func prefixOverACut(ctx context.Context, client, far pailv1.BucketServiceClient, line *line) {
	two, three := create(ctx, client, "p/2"), create(ctx, client, "p/3")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := "p/"
	following := follow(ctx, far, &pailv1.WatchRequest{Prefix: &prefix})
	name := follow(ctx, far, &pailv1.WatchRequest{Buckets: []string{"p/2"}, Follow: true})
	name.tells("the bucket of that name", initial(two))
	registryID := following.tells("the first of the snapshot", initial(two)).registryID
	following.tells("the second", initial(three))
	four := create(ctx, client, "p/4")
	following.tells("a creation", creation(four))

	line.cut()
	revision := stopFor(ctx, client, "p/2", pailv1.Reason_REASON_KILLED, "meanwhile")
	namesake, five := create(ctx, client, "p/2"), create(ctx, client, "p/5")
	line.mend()
	following.tells("the first that was missed", death(two, revision, "REASON_KILLED", "meanwhile"))
	following.tells("the second that was missed", creation(namesake))
	following.tells("the third that was missed", creation(five))
	name.tells("the death of that name", death(two, revision, "REASON_KILLED", "meanwhile"))
	name.tells("its creation", creation(namesake))

	for _, bucket := range []*pailv1.Bucket{namesake, three, four, five} {
		revision := stop(ctx, client, bucket.GetName())
		last := following.tells("what happens after that", death(bucket, revision, "REASON_NORMAL", ""))
		if bucket == namesake {
			same("the resets of the name", name.tells("its death", last.event).resets, 0)
		}
		same("the registry", last.registryID, registryID)
		same("the resets", last.resets, 0)
	}
}

// The ends that a real server does not give when it is asked to, and from where the watch goes on after each.
func prefixOverEveryEnd(ctx context.Context) {
	begin := func(registryID string, revision uint64) *pailv1.WatchResponse {
		started := &pailv1.WatchResponse_Started{Started: &pailv1.WatchStarted{RegistryId: registryID}}
		return &pailv1.WatchResponse{Revision: revision, Response: started}
	}
	synced := func(revision uint64) *pailv1.WatchResponse {
		return &pailv1.WatchResponse{Revision: revision, Response: &pailv1.WatchResponse_Synced{}}
	}
	fails := func(code codes.Code, reason string, metadata map[string]string, responses ...*pailv1.WatchResponse) script {
		return script{responses, refusal(code, reason, metadata)}
	}
	fake := newFake(
		script{[]*pailv1.WatchResponse{begin("one", 0), synced(7)}, nil},
		fails(codes.ResourceExhausted, "WATCHER_LAGGED", map[string]string{"resume_revision": "9"}, begin("one", 7)),
		fails(codes.Unavailable, "OVERLOADED", nil),
		fails(codes.OutOfRange, "REVISION_COMPACTED", map[string]string{"oldest_revision": "20"}),
		fails(codes.Unavailable, "DRAINING", nil, begin("one", 0)),
		fails(codes.Internal, "PANIC", nil, begin("two", 0), synced(30)),
	)
	defer fake.server.Stop()
	_, client, close := connect(fake.address)
	defer close()

	resets := 0
	watch := pailclient.ResumingWatch{
		Client:  client,
		Request: &pailv1.WatchRequest{Prefix: new(string), Heartbeat: durationpb.New(100 * time.Millisecond)},
		OnReset: func() { resets++ },
	}
	for _, err := range watch.Events(ctx) {
		same("an end that time does not mend", status.Code(err), codes.Internal)
	}
	var places []string
	for _, asked := range fake.asked {
		places = append(places, fmt.Sprint(asked.GetRegistryId(), asked.GetAfterRevision()))
	}
	same("from where it went on", places, []string{"0", "one7", "one9", "one9", "0", "0"})
	same("the resets", resets, 2)
}
