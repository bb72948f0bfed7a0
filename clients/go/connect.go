// Package pailclient is what a client of pail needs beside the generated code: a connection, the reasons of errors, and
// a Watch that goes on. It is made to be copied.
package pailclient

import (
	_ "embed"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// What may be tried again, and how often: see clients/service_config.json.
//
//go:embed service_config.json
var serviceConfig string

// Connect makes a client's connection to HOST:PORT. It retries what may be retried, finds out that a connection is
// dead, and comes back soon.
func Connect(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// Left to itself, gRPC waits up to two minutes before it tries again.
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: time.Second,
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 5 * time.Second,
			},
		}),
	}, options...)
	return grpc.NewClient(address, options...)
}
