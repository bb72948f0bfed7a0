package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/pail-client/pailv1"
)

const (
	ops           = 10_000
	opsPerMessage = 250
)

// The first op creates a bucket, and all others name it by that op. Of ten, one fails in its place.
func pipelineOp(id uint64) *pailv1.PipelineOp {
	first := uint64(1)
	op := &pailv1.PipelineOp{Id: id, BucketIdFrom: &first}
	switch {
	case id == first:
		op.BucketIdFrom = nil
		op.Op = &pailv1.PipelineOp_Create{Create: &pailv1.CreateRequest{Bucket: "pipeline"}}
	case id%10 == 0:
		op.Op = &pailv1.PipelineOp_Get{Get: &pailv1.GetRequest{Bucket: "pipeline", Key: "absent"}}
	case id%2 == 0:
		value := integer(int64(id))
		op.Op = &pailv1.PipelineOp_Put{Put: &pailv1.PutRequest{Bucket: "pipeline", Key: "k", Value: value}}
	default:
		op.Op = &pailv1.PipelineOp_Get{Get: &pailv1.GetRequest{Bucket: "pipeline", Key: "k"}}
	}
	return op
}

// Step 8.
func pipeline(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	stream := must(client.Pipeline(ctx))
	// Who sends without reading is held back, so there are two who do it.
	sent := make(chan error, 1)
	go func() {
		for id := uint64(1); id <= ops; {
			request := &pailv1.PipelineRequest{}
			for range opsPerMessage {
				request.Ops = append(request.Ops, pipelineOp(id))
				id++
			}
			if err := stream.Send(request); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()

	var answered, bucketID, lastPut uint64
	response, err := stream.Recv()
	for ; err == nil; response, err = stream.Recv() {
		for _, result := range response.GetResults() {
			answered++
			same("the id of a result", result.GetId(), answered)
			switch {
			case answered == 1:
				bucketID = result.GetCreate().GetBucket().GetId()
			case answered%10 == 0:
				why := status.FromProto(result.GetError()).Err()
				refused(why, codes.NotFound, "KEY_NOT_FOUND", facts{"key": "absent"})
			case answered%2 == 0:
				same("the bucket of a put", result.GetPut().GetBucketId(), bucketID)
				lastPut = answered
			default:
				same("what a get finds", result.GetGet().GetEntry().GetValue().GetInteger(), int64(lastPut))
			}
		}
	}
	holds("the stream ends with OK", errors.Is(err, io.EOF))
	same("how sending ended", <-sent, nil)
	same("the answers", answered, ops)
	stop(ctx, client, "pipeline")
}
