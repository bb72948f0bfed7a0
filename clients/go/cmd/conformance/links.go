package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/pail-client/pailv1"
)

func linkRequest(id uint64, bucket string, mode pailv1.LinkMode) *pailv1.LinkRequest {
	link := &pailv1.LinkBucket{Bucket: bucket, Mode: mode}
	return &pailv1.LinkRequest{Id: id, Request: &pailv1.LinkRequest_Link{Link: link}}
}

// Step 6.
func links(ctx context.Context, address string) {
	_, client, close := connect(address)
	defer close()
	linkClosed(ctx, client)
	linkKilled(ctx, client, address)
}

func linkClosed(ctx context.Context, client pailv1.BucketServiceClient) {
	link := must(client.Link(ctx))
	must(0, link.Send(linkRequest(7, "closed", pailv1.LinkMode_LINK_MODE_MUST_CREATE)))
	answer := must(link.Recv())
	same("the answer's id", answer.GetId(), 7)
	must(0, link.CloseSend())
	same("the end of a link after a good-bye", failure(link.Recv()), io.EOF)
	bucket := must(client.Lookup(ctx, &pailv1.LookupRequest{Bucket: "closed"})).GetBucket()
	same("the bucket that lives on", bucket.GetId(), answer.GetLinked().GetBucketId())
	stop(ctx, client, "closed")
}

func linkKilled(ctx context.Context, client pailv1.BucketServiceClient, address string) {
	child := exec.CommandContext(ctx, must(os.Executable()), "--link", address, "killed")
	output := must(child.StdoutPipe())
	must(0, child.Start())
	defer func() { _ = child.Wait() }()
	defer func() { _ = child.Process.Kill() }()
	same("the child's word", must(bufio.NewReader(output).ReadString('\n')), "linked\n")
	// Five seconds are the promise: a kernel closes the connections of a process that is killed.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	watch := must(client.Watch(ctx, &pailv1.WatchRequest{Buckets: []string{"killed"}}))
	id := must(watch.Recv()).GetStarted().GetMonitors()[0].GetBucketId()
	holds("the bucket lives while its client does", id != 0)
	must(0, child.Process.Kill())

	var downs []event
	for len(downs) == 0 {
		downs = toldBy(must(watch.Recv()))
	}
	same("the id of the DOWN", downs[0].id, id)
	same("its reason", downs[0].reason, "REASON_NOCONNECTION")
	same("the end of the watch", endOf(watch, nil), codes.OK)
}

// The child of linkKilled.
func linkAndWait(address, bucket string) {
	_, client, close := connect(address)
	defer close()
	link := must(client.Link(context.Background()))
	must(0, link.Send(linkRequest(1, bucket, pailv1.LinkMode_LINK_MODE_MUST_CREATE)))
	if must(link.Recv()).GetLinked() != nil {
		fmt.Println("linked")
	}
	_, _ = link.Recv()
}
