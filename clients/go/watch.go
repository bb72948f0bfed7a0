package pailclient

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/pail-client/pailv1"
)

// ResumingWatch is a Watch by prefix, or by name with `follow`, that goes on: over lost connections, a server that
// restarts, and a history that has passed it.
//
// Where what was missed is not to be had any more (another registry, or a history that has gone on), OnReset is
// called: forget what you know, a new snapshot follows. RegistryID and Revision are the place up to which you were
// told; set them to go on from there. They belong to the goroutine that ranges over Events.
type ResumingWatch struct {
	Client     pailv1.BucketServiceClient
	Request    *pailv1.WatchRequest
	OnReset    func()
	RegistryID string
	Revision   uint64
	wasTold    bool
}

var (
	errSilent  = errors.New("not even heartbeats came")
	errStopped = errors.New("nobody ranges over the events any more")
)

// Events yields each event once and in order, for ever: until ctx is done, or an error comes that time does not mend,
// which is yielded last.
func (w *ResumingWatch) Events(ctx context.Context) iter.Seq2[*pailv1.Event, error] {
	return func(yield func(*pailv1.Event, error) bool) {
		if w.Request.Prefix == nil && !w.Request.GetFollow() {
			yield(nil, errors.New("a watch by name without follow ends by itself: there is nothing to resume for ever"))
			return
		}
		w.wasTold = w.Revision != 0
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			isResumed := w.Revision != 0
			hasStarted, err := w.watch(ctx, yield)
			reason := ErrorInfo(err).GetReason()
			switch {
			case err == errStopped:
				return
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case isResumed && (reason == "REVISION_UNKNOWN" || reason == "REVISION_COMPACTED"):
				w.Revision = 0
			case reason == "WATCHER_LAGGED":
				w.Revision, _ = strconv.ParseUint(ErrorInfo(err).GetMetadata()["resume_revision"], 10, 64)
			case err != errSilent && status.Code(err) != codes.Unavailable:
				yield(nil, err)
				return
			}
			if hasStarted {
				wait = 100 * time.Millisecond
			}
			select {
			case <-time.After(wait/2 + rand.N(wait/2)):
			case <-ctx.Done():
			}
		}
	}
}

// One stream, from its begin to its end; whether it began, and why it ended.
func (w *ResumingWatch) watch(ctx context.Context, yield func(*pailv1.Event, error) bool) (hasStarted bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := 45 * time.Second
	if w.Request.GetHeartbeat() != nil {
		silence = 3 * w.Request.GetHeartbeat().AsDuration()
	}
	request := proto.CloneOf(w.Request)
	request.AfterRevision, request.RegistryId = nil, nil
	if w.Revision != 0 {
		request.AfterRevision, request.RegistryId = &w.Revision, &w.RegistryID
	}
	// Reading alone is timed: the user may take his time over an event.
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	stream, err := w.Client.Watch(ctx, request)
	for err == nil {
		var response *pailv1.WatchResponse
		timer.Reset(silence)
		if response, err = stream.Recv(); err != nil {
			break
		}
		timer.Stop()
		if started := response.GetStarted(); started != nil {
			if w.wasTold && request.AfterRevision == nil {
				w.OnReset()
			}
			w.RegistryID, w.wasTold, hasStarted = started.GetRegistryId(), true, true
		}
		for _, event := range response.GetEvents().GetEvents() {
			if !yield(event, nil) {
				return hasStarted, errStopped
			}
		}
		w.Revision = response.GetRevision() // 0 within a snapshot, which can't be resumed
	}
	if context.Cause(ctx) == errSilent {
		err = errSilent
	}
	return hasStarted, err
}
