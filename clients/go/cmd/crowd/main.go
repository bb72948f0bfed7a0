// Command crowd opens as many watches on one connection as the server lets it, and then asks it for one more thing.
//
//	crowd ADDRESS
//
// It ends with 0 where a watch is refused at last and that thing is answered, and with 1 where there is no end of watches, or
// no stream is left for the other.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Far longer than a server takes that answers at all.
const patience = 3 * time.Second

// More than a server should allow.
const watchesMax = 4096

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crowd ADDRESS")
		os.Exit(2)
	}
	connection, err := pailclient.Connect(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	client := pailv1.NewBucketServiceClient(connection)
	watches, refusal := 0, error(nil)
	for ; watches < watchesMax && refusal == nil; watches++ {
		refusal = watch(client)
	}
	fmt.Printf("watches: %d, and then: %v\n", watches, refusal)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = client.Get(ctx, &pailv1.GetRequest{Bucket: "crowd", Key: "key"})
	fmt.Printf("a Get: %v\n", err)
	if code := status.Code(err); refusal == nil || code != codes.OK && code != codes.NotFound {
		os.Exit(1)
	}
}

// watch opens a watch that stays open, and waits for its first response.
func watch(client pailv1.BucketServiceClient) error {
	ctx, cancel := context.WithCancel(context.Background())
	late := time.AfterFunc(patience, cancel)
	prefix := ""
	stream, err := client.Watch(ctx, &pailv1.WatchRequest{Prefix: &prefix})
	if err == nil {
		_, err = stream.Recv()
	}
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	return err
}
