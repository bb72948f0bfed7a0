package main

import (
	"context"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/pail-client/pailv1"
)

// Step 7.
func serverRestart(ctx context.Context, _ string) {
	overARestart(ctx)
	whileUnavailable(ctx)
	whileItStandsStill(ctx)
}

func overARestart(ctx context.Context) {
	server := startServer()
	defer server.kill()
	_, client, close := connect(server.address)
	defer close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	prefix := "r/"
	before := create(ctx, client, "r/1")
	following := follow(ctx, client, &pailv1.WatchRequest{Prefix: &prefix})
	registryID := following.tells("the snapshot", initial(before)).registryID
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Prefix: &prefix}))
	response := must(watch.Recv())
	for response.GetSynced() == nil {
		response = must(watch.Recv())
	}
	place := response.GetRevision()

	server.stop()
	isToldOfTheDrain(watch, before)
	down := following.next("the DOWN")
	same("what the drain ends", down.event, death(before, down.revision, "REASON_SHUTDOWN", down.detail))

	server.start()
	resumed := &pailv1.WatchRequest{Prefix: &prefix, AfterRevision: &place, RegistryId: &registryID}
	// The connection may not have found it yet.
	watch = must(client.Watch(ctx, resumed, grpc.WaitForReady(true)))
	refused(failure(watch.Recv()), codes.OutOfRange, "REVISION_UNKNOWN", facts{"field": "registry_id"})
	after := create(ctx, client, "r/2")
	created := following.next("the new snapshot")
	// It was created before the new snapshot was taken, or after.
	wanted := creation(after)
	wanted.isInitial = created.isInitial
	same("the new life", created.event, wanted)
	same("the resets", created.resets, 1)
	holds("the registry is another", created.registryID != "" && created.registryID != registryID)
}

// Exactly one DOWN with SHUTDOWN, then `draining`, then UNAVAILABLE / DRAINING.
func isToldOfTheDrain(watch grpc.ServerStreamingClient[pailv1.WatchResponse], bucket *pailv1.Bucket) {
	var ids []uint64
	isDraining := false
	response, err := watch.Recv()
	for ; err == nil; response, err = watch.Recv() {
		holds("nothing comes after draining", !isDraining)
		for _, down := range toldBy(response) {
			ids = append(ids, down.id)
		}
		isDraining = response.GetDraining() != nil
	}
	refused(err, codes.Unavailable, "DRAINING", nil)
	holds("draining comes before that", isDraining)
	same("the buckets that went down", ids, []uint64{bucket.GetId()})
}

// What may be done twice is tried as often as the service config says, and what may not is tried once.
func whileUnavailable(ctx context.Context) {
	fake := newFake()
	defer fake.server.Stop()
	_, client, close := connect(fake.address)
	defer close()
	get := failure(client.Get(ctx, &pailv1.GetRequest{Bucket: "b", Key: "k"}))
	same("the answer to a Get", status.Code(get), codes.Unavailable)
	put := failure(client.Put(ctx, &pailv1.PutRequest{Bucket: "b", Key: "k", Value: flag(true)}))
	same("the answer to a Put", status.Code(put), codes.Unavailable)
	same("what was tried", fake.calls, []string{"Get", "Get", "Get", "Get", "Get", "Put"})
}

// A server that is there and does nothing: the connection's pings find it out, 10 s and then 5 s for the answer.
func whileItStandsStill(ctx context.Context) {
	server := startServer()
	defer server.kill()
	_, client, close := connect(server.address)
	defer close()
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Prefix: new(string)}))
	for must(watch.Recv()).GetSynced() == nil {
	}
	must(0, server.command.Process.Signal(syscall.SIGSTOP))
	// Where nothing finds it out, this does, and in words of its own.
	timer := time.AfterFunc(20*time.Second, server.kill)
	response, err := watch.Recv()
	holds("a connection on which nobody answers is found out within 20 s", timer.Stop())
	if err == nil {
		fail("a server that stands still has sent %v", response)
	}
	same("the end of a watch on it", status.Code(err), codes.Unavailable)
}
