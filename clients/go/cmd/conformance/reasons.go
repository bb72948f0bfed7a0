package main

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/pail-client/pailv1"
)

// Past any limit that a small server has.
const many = 1_000

// Step 3.
func reasons(ctx context.Context, address string) {
	connection, client, close := connect(address)
	defer close()
	reasonsOfRequests(ctx, connection, client)
	reasonsOfState(ctx, client)
	reasonsOfStreams(ctx, client)

	// With a window that does not grow, so that a watch that is not read is soon held back.
	_, small, closeSmall := connect(of("PAIL_SMALL"), grpc.WithStaticStreamWindowSize(1<<16))
	defer closeSmall()
	reasonsOfLimits(ctx, small)
	reasonsOfHistory(ctx, small)
	reasonsOfManyStreams(ctx, small)
}

// Bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(bytes any) ([]byte, error)        { return bytes.([]byte), nil }
func (bytesCodec) Unmarshal(bytes []byte, answer any) error { *answer.(*[]byte) = bytes; return nil }
func (bytesCodec) Name() string                             { return "proto" }

func reasonsOfRequests(ctx context.Context, connection *grpc.ClientConn, client pailv1.BucketServiceClient) {
	const large = 1<<20 + 1
	raw := func(method string, request []byte) error {
		var answer []byte
		return connection.Invoke(ctx, "/pail.v1.BucketService/"+method, request, &answer, grpc.ForceCodec(bytesCodec{}))
	}
	create(ctx, client, "b")
	for _, row := range []struct {
		reason string
		err    error
		facts  facts
	}{
		{
			"INVALID_NAME", failure(client.Create(ctx, &pailv1.CreateRequest{})),
			facts{"field": "bucket", "limit": 255, "actual": 0},
		},
		{
			"INVALID_KEY", failure(client.Get(ctx, &pailv1.GetRequest{Bucket: "b"})),
			facts{"field": "key", "limit": 1_024, "actual": 0},
		},
		{
			"INVALID_VALUE", failure(client.Put(ctx, &pailv1.PutRequest{Bucket: "b", Key: "k"})),
			facts{"field": "value"},
		},
		{
			"INVALID_OPTION", failure(client.List(ctx, &pailv1.ListRequest{PageSize: -1})),
			facts{"field": "page_size"},
		},
		{
			"INVALID_PAGE_TOKEN", failure(client.List(ctx, &pailv1.ListRequest{PageToken: "?"})),
			facts{"field": "page_token"},
		},
		{
			"TOO_LARGE", failure(client.Put(ctx, &pailv1.PutRequest{Bucket: "b", Key: "k", Value: data(make([]byte, large))})),
			facts{"field": "value", "limit": large - 1, "actual": large},
		},
		{"INVALID_MESSAGE", raw("Create", []byte{0xff, 0xff, 0xff}), nil},
	} {
		refused(row.err, codes.InvalidArgument, row.reason, row.facts)
	}
	refused(raw("Destroy", nil), codes.Unimplemented, "UNIMPLEMENTED", nil)
	version := must(client.Lookup(ctx, &pailv1.LookupRequest{Bucket: "b"})).GetBucket().GetVersion()
	same("the version of a bucket of which all was refused", version, 0)
}

func reasonsOfState(ctx context.Context, client pailv1.BucketServiceClient) {
	nobody := failure(client.Get(ctx, &pailv1.GetRequest{Bucket: "nobody", Key: "k"}))
	refused(nobody, codes.NotFound, "BUCKET_NOT_FOUND", facts{"bucket": "nobody", "key": "k"})
	nothing := failure(client.Get(ctx, &pailv1.GetRequest{Bucket: "b", Key: "k"}))
	refused(nothing, codes.NotFound, "KEY_NOT_FOUND", facts{"bucket": "b", "key": "k"})

	put(ctx, client, "b", "k", text("not a number"))
	put(ctx, client, "b", "most", integer(math.MaxInt64))
	add := failure(client.Add(ctx, &pailv1.AddRequest{Bucket: "b", Key: "k", Delta: 1}))
	refused(add, codes.FailedPrecondition, "WRONG_TYPE", facts{"bucket": "b", "key": "k"})
	again := &pailv1.PutRequest{Bucket: "b", Key: "k", Value: flag(true), ExpectedVersion: new(uint64)}
	mismatch := failure(client.Put(ctx, again))
	refused(mismatch, codes.FailedPrecondition, "VERSION_MISMATCH", facts{"key": "k", "actual_version": 1})
	more := failure(client.Add(ctx, &pailv1.AddRequest{Bucket: "b", Key: "most", Delta: 1}))
	refused(more, codes.OutOfRange, "INTEGER_OVERFLOW", facts{"bucket": "b", "key": "most"})
}

func reasonsOfStreams(ctx context.Context, client pailv1.BucketServiceClient) {
	future := uint64(1 << 62)
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Prefix: new(string), AfterRevision: &future}))
	refused(failure(watch.Recv()), codes.OutOfRange, "REVISION_UNKNOWN", facts{"field": "after_revision"})

	id := must(client.Lookup(ctx, &pailv1.LookupRequest{Bucket: "b"})).GetBucket().GetId()
	whose := facts{"bucket": "b", "bucket_id": id}
	link := must(client.Link(ctx))
	must(0, link.Send(linkRequest(1, "b", pailv1.LinkMode_LINK_MODE_MUST_CREATE)))
	answer := must(link.Recv())
	same("the id of the answer", answer.GetId(), 1)
	refused(status.FromProto(answer.GetError()).Err(), codes.AlreadyExists, "BUCKET_EXISTS", whose)

	must(0, link.Send(linkRequest(2, "b", pailv1.LinkMode_LINK_MODE_MUST_EXIST)))
	same("the link's bucket", must(link.Recv()).GetLinked().GetBucketId(), id)
	stopFor(ctx, client, "b", pailv1.Reason_REASON_KILLED, "why")
	exit := &pailv1.LinkExit{Bucket: "b", BucketId: id, Reason: pailv1.Reason_REASON_KILLED, Detail: "why"}
	sameMessage("the exit", must(link.Recv()).GetExit(), exit)
	refused(failure(link.Recv()), codes.Aborted, "LINKED_EXIT", whose)
}

// The first error of many calls.
func until(call func(n int) error) error {
	for n := range many {
		if err := call(n); err != nil {
			return err
		}
	}
	return nil
}

func reasonsOfLimits(ctx context.Context, client pailv1.BucketServiceClient) {
	var created []string
	err := until(func(n int) error {
		answer, err := client.Create(ctx, &pailv1.CreateRequest{Bucket: fmt.Sprintf("b%d", n)})
		if err == nil {
			created = append(created, answer.GetBucket().GetName())
		}
		return err
	})
	refused(err, codes.ResourceExhausted, "TOO_MANY_BUCKETS", facts{"limit": len(created)})
	err = until(func(n int) error {
		return failure(client.Put(ctx, &pailv1.PutRequest{Bucket: "b0", Key: fmt.Sprintf("k%d", n), Value: flag(true)}))
	})
	refused(err, codes.ResourceExhausted, "TOO_MANY_ENTRIES", facts{"bucket": "b0", "limit": something})
	large := &pailv1.PutRequest{Bucket: "b1", Key: "k", Value: data(make([]byte, 1<<20))}
	outOfMemory := facts{"bucket": "b1", "limit": something}
	refused(failure(client.Put(ctx, large)), codes.ResourceExhausted, "OUT_OF_MEMORY", outOfMemory)
	for _, bucket := range created {
		stop(ctx, client, bucket)
	}
}

func reasonsOfHistory(ctx context.Context, client pailv1.BucketServiceClient) {
	slow := must(client.Watch(ctx, &pailv1.WatchRequest{Prefix: new(string)}))
	registryID := must(slow.Recv()).GetStarted().GetRegistryId()
	revision := must(slow.Recv()).GetRevision()
	// Far more than the server and the connection hold for a stream that is not read.
	word := string(make([]byte, 1_024))
	for range 600 {
		create(ctx, client, "churn")
		stopFor(ctx, client, "churn", pailv1.Reason_REASON_NORMAL, word)
	}
	err := error(nil)
	for err == nil {
		_, err = slow.Recv()
	}
	refused(err, codes.ResourceExhausted, "WATCHER_LAGGED", facts{"resume_revision": something})

	late := &pailv1.WatchRequest{Prefix: new(string), AfterRevision: &revision, RegistryId: &registryID}
	watch := must(client.Watch(ctx, late))
	refused(failure(watch.Recv()), codes.OutOfRange, "REVISION_COMPACTED", facts{"oldest_revision": something})
}

func reasonsOfManyStreams(ctx context.Context, client pailv1.BucketServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := until(func(int) error {
		watch, err := client.Watch(ctx, &pailv1.WatchRequest{Prefix: new(string)})
		if err == nil {
			_, err = watch.Recv()
		}
		return err
	})
	refused(err, codes.ResourceExhausted, "TOO_MANY_STREAMS", facts{"limit": something})
}
