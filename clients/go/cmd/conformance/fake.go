package main

import (
	"context"
	"net"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/pail-client/pailv1"
)

// A server that answers as it is told: for what the client must bear, and a real server does too rarely to wait for.
//
// Get and Put are unavailable. Each Watch is answered by the next script.
type fake struct {
	pailv1.UnimplementedBucketServiceServer
	address string
	server  *grpc.Server

	mutex   sync.Mutex
	scripts []script
	asked   []*pailv1.WatchRequest
	calls   []string
}

// The responses of a Watch, and then how it ends; nil: it falls silent.
type script struct {
	responses []*pailv1.WatchResponse
	end       error
}

func newFake(scripts ...script) *fake {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	fake := &fake{address: listener.Addr().String(), server: grpc.NewServer(), scripts: scripts}
	pailv1.RegisterBucketServiceServer(fake.server, fake)
	go func() { _ = fake.server.Serve(listener) }()
	return fake
}

func (f *fake) Get(context.Context, *pailv1.GetRequest) (*pailv1.GetResponse, error) {
	return nil, f.unavailable("Get")
}

func (f *fake) Put(context.Context, *pailv1.PutRequest) (*pailv1.PutResponse, error) {
	return nil, f.unavailable("Put")
}

func (f *fake) unavailable(method string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.calls = append(f.calls, method)
	return status.Error(codes.Unavailable, "not now")
}

func (f *fake) Watch(request *pailv1.WatchRequest, stream grpc.ServerStreamingServer[pailv1.WatchResponse]) error {
	script, err := f.next(request)
	if err != nil {
		return err
	}
	for _, response := range script.responses {
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	if script.end == nil {
		<-stream.Context().Done()
	}
	return script.end
}

func (f *fake) next(request *pailv1.WatchRequest) (script, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.asked = append(f.asked, request)
	if len(f.scripts) == 0 {
		return script{}, status.Error(codes.FailedPrecondition, "there is no further script")
	}
	first := f.scripts[0]
	f.scripts = f.scripts[1:]
	return first, nil
}

// An error as pail gives it.
func refusal(code codes.Code, reason string, metadata map[string]string) error {
	info := &errdetails.ErrorInfo{Domain: "pail", Reason: reason, Metadata: metadata}
	return must(status.New(code, "as told").WithDetails(info)).Err()
}
