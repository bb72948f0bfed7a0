package main

import (
	"fmt"
	"os"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
)

// The server, or the client, did not do what it must: the words that say so. Checks panic with it.
type wrong string

func fail(format string, arguments ...any) {
	panic(wrong(fmt.Sprintf(format, arguments...)))
}

func holds(what string, condition bool) {
	if !condition {
		fail("%s: it does not hold", what)
	}
}

func same[T any](what string, actual, wanted T) {
	if !reflect.DeepEqual(actual, wanted) {
		fail("%s: %v instead of %v", what, actual, wanted)
	}
}

// What a call that must not fail has answered.
func must[T any](answer T, err error) T {
	if err != nil {
		fail("it failed: %v", err)
	}
	return answer
}

// A fact that must be in the metadata, whatever it is.
const something = "(something)"

type facts map[string]any

// Holds an error to its code, reason and facts.
func refused(err error, code codes.Code, reason string, wanted facts) {
	if err == nil {
		fail("%s: it was not refused", reason)
	}
	same(reason+": its code", status.Code(err), code)
	info := pailclient.ErrorInfo(err)
	if info == nil {
		fail("%s: it has no details, but: %v", reason, err)
	}
	same("the reason", info.GetReason(), reason)
	for name, value := range wanted {
		actual, found := info.GetMetadata()[name]
		holds(fmt.Sprintf("%s: its metadata has %s", reason, name), found)
		if value != something {
			same(fmt.Sprintf("%s: %s of its metadata", reason, name), actual, fmt.Sprint(value))
		}
	}
}

// The error alone, of what answers with more.
func failure[T any](_ T, err error) error { return err }

// The value of an environment variable that the runner sets.
func of(variable string) string {
	value := os.Getenv(variable)
	if value == "" {
		fail("%s is not set: see CONFORMANCE.md", variable)
	}
	return value
}

// A connection, its client, and how to close it.
func connect(address string, options ...grpc.DialOption) (*grpc.ClientConn, pailv1.BucketServiceClient, func()) {
	connection := must(pailclient.Connect(address, options...))
	return connection, pailv1.NewBucketServiceClient(connection), func() { _ = connection.Close() }
}

// Two messages are the same where their bytes are: so are the bits of a NaN, which is equal to nothing.
func sameMessage(what string, actual, wanted proto.Message) {
	encode := func(message proto.Message) []byte {
		return must(proto.MarshalOptions{Deterministic: true}.Marshal(message))
	}
	if string(encode(actual)) != string(encode(wanted)) {
		fail("%s: %v instead of %v", what, actual, wanted)
	}
}
