package main

import (
	"context"
	"math"

	"google.golang.org/grpc/codes"

	"example.com/pail-client/pailv1"
)

func text(value string) *pailv1.Value {
	return &pailv1.Value{Kind: &pailv1.Value_Text{Text: value}}
}

func data(value []byte) *pailv1.Value {
	return &pailv1.Value{Kind: &pailv1.Value_Data{Data: value}}
}

func integer(value int64) *pailv1.Value {
	return &pailv1.Value{Kind: &pailv1.Value_Integer{Integer: value}}
}

func number(value float64) *pailv1.Value {
	return &pailv1.Value{Kind: &pailv1.Value_Number{Number: value}}
}

func flag(value bool) *pailv1.Value {
	return &pailv1.Value{Kind: &pailv1.Value_Flag{Flag: value}}
}

func create(ctx context.Context, client pailv1.BucketServiceClient, bucket string) *pailv1.Bucket {
	return must(client.Create(ctx, &pailv1.CreateRequest{Bucket: bucket})).GetBucket()
}

func put(ctx context.Context, client pailv1.BucketServiceClient, bucket, key string, value *pailv1.Value) {
	must(client.Put(ctx, &pailv1.PutRequest{Bucket: bucket, Key: key, Value: value}))
}

// Stops a bucket; the revision of its death.
func stop(ctx context.Context, client pailv1.BucketServiceClient, bucket string) uint64 {
	return must(client.Stop(ctx, &pailv1.StopRequest{Bucket: bucket})).GetRevision()
}

// The same, with a reason and words.
func stopFor(
	ctx context.Context, client pailv1.BucketServiceClient, bucket string, reason pailv1.Reason, detail string,
) uint64 {
	request := &pailv1.StopRequest{Bucket: bucket, Reason: reason, Detail: detail}
	return must(client.Stop(ctx, request)).GetRevision()
}

// Step 1.
func session(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	lookup := func(bucket string) error {
		return failure(client.Lookup(ctx, &pailv1.LookupRequest{Bucket: bucket}))
	}

	created := must(client.Create(ctx, &pailv1.CreateRequest{Bucket: "shopping"}))
	same("the first Create has created", created.GetCreated(), true)
	again := must(client.Create(ctx, &pailv1.CreateRequest{Bucket: "shopping"}))
	same("the second Create has created", again.GetCreated(), false)
	same("the id of the second Create", again.GetBucket().GetId(), created.GetBucket().GetId())
	refused(lookup("nobody"), codes.NotFound, "BUCKET_NOT_FOUND", facts{"bucket": "nobody"})

	put(ctx, client, "shopping", "milk", integer(3))
	milk := must(client.Get(ctx, &pailv1.GetRequest{Bucket: "shopping", Key: "milk"})).GetEntry()
	sameMessage("what Get finds", milk, &pailv1.Entry{Key: "milk", Value: integer(3), Version: 1})
	eggs := failure(client.Get(ctx, &pailv1.GetRequest{Bucket: "shopping", Key: "eggs"}))
	refused(eggs, codes.NotFound, "KEY_NOT_FOUND", facts{"bucket": "shopping", "key": "eggs"})
	remove := &pailv1.DeleteRequest{Bucket: "shopping", Key: "milk"}
	sameMessage("what Delete removed", must(client.Delete(ctx, remove)).GetEntry(), milk)
	same("what Delete found again", must(client.Delete(ctx, remove)).GetEntry(), nil)

	stop(ctx, client, "shopping")
	refused(lookup("shopping"), codes.NotFound, "BUCKET_NOT_FOUND", facts{"bucket": "shopping"})
	namesake := create(ctx, client, "shopping")
	holds("a namesake has another id", namesake.GetId() != created.GetBucket().GetId())
	stop(ctx, client, "shopping")
}

// Step 2.
func values(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	every := make([]byte, 256)
	for index := range every {
		every[index] = byte(index)
	}
	list := []*pailv1.Value{
		text(""), text("two loaves"), text("käse 🧀"), text("\x00\n"), data(nil), data(every),
		integer(0), integer(-1), integer(3), integer(math.MinInt64), integer(math.MaxInt64), flag(false), flag(true),
	}
	// 0 and -0, the least, the infinities, and a quiet NaN with a payload.
	for _, bits := range []uint64{0, 1 << 63, 1, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff80000deadbeef} {
		list = append(list, number(math.Float64frombits(bits)))
	}
	create(ctx, client, "values")
	for _, value := range list {
		put(ctx, client, "values", "k", value)
		found := must(client.Get(ctx, &pailv1.GetRequest{Bucket: "values", Key: "k"})).GetEntry().GetValue()
		sameMessage("what Get finds", found, value)
	}
	stop(ctx, client, "values")
}

// Step 9.
func deadlineAndCancel(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()

	short, cancel := context.WithTimeout(ctx, shortDeadline)
	defer cancel()
	watch, err := client.Watch(short, &pailv1.WatchRequest{Prefix: new(string)})
	same("the end of a watch past its deadline", endOf(watch, err), codes.DeadlineExceeded)

	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	watch = must(client.Watch(cancelled, &pailv1.WatchRequest{Prefix: new(string)}))
	holds("a watch begins", must(watch.Recv()).GetStarted() != nil)
	cancel()
	same("the end of a watch that was cancelled", endOf(watch, nil), codes.Canceled)

	create(ctx, client, "after")
	stop(ctx, client, "after")
}
