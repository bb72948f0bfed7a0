package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	pailclient "example.com/pail-client"
	"example.com/pail-client/pailv1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The promise of Watch, word by word: ordered, unique, reliable, resumable, bookmarkable, explained, alive. Each word is
// checked where the comment names it.

// life is a bucket, as the one who hears of everything was told.
type life struct {
	name    string
	version uint64
	changes map[uint64]change
	down    *pailv1.DownEvent
}

type change struct {
	key     string
	value   int64
	deleted bool
}

// tracker follows all lifecycle events of a server, and finds what is told wrongly.
type tracker struct {
	who    string
	breaks func(string, ...any)
	lives  map[uint64]*life // all that were told of
	alive  map[string]uint64
	synced bool
	last   uint64 // the revision of the last event, or that of the snapshot
	// At each snapshot: its revision, and who was alive.
	snapshots map[uint64][]uint64
}

func newTracker(who string, breaks func(string, ...any)) *tracker {
	return &tracker{
		who: who, breaks: breaks, lives: map[uint64]*life{}, alive: map[string]uint64{},
		snapshots: map[uint64][]uint64{},
	}
}

func (t *tracker) wrong(format string, values ...any) {
	t.breaks("%s: %s", t.who, fmt.Sprintf(format, values...))
}

// reset forgets who is alive: a snapshot follows.
func (t *tracker) reset() { t.synced, t.alive = false, map[string]uint64{} }

func (t *tracker) hear(response *pailv1.WatchResponse) {
	for _, event := range response.GetEvents().GetEvents() {
		switch of := event.GetEvent().(type) {
		case *pailv1.Event_Created:
			t.created(of.Created)
		case *pailv1.Event_Down:
			t.down(of.Down)
		case *pailv1.Event_Put:
			e := of.Put.GetEntry()
			t.change(of.Put.GetBucketId(), e.GetVersion(), change{key: e.GetKey(), value: e.GetValue().GetInteger()})
		case *pailv1.Event_Deleted:
			t.change(of.Deleted.GetBucketId(), of.Deleted.GetVersion(), change{key: of.Deleted.GetKey(), deleted: true})
		}
	}
	revision := response.GetRevision()
	if response.GetSynced() != nil {
		if !t.synced {
			t.last = revision
			for _, id := range t.alive {
				t.snapshots[revision] = append(t.snapshots[revision], id)
			}
		}
		t.synced = true
	}
	// Bookmarkable, and reliable: every revision is an event's, and all that are spoken of were told. Where there is more to
	// tell than one response holds, it may not speak of all yet.
	hasMore := len(response.GetEvents().GetEvents()) > 0 && revision < t.last
	if t.synced && revision != t.last && !hasMore {
		t.wrong("speaks of revision %d, and the last event was %d", revision, t.last)
		t.last = revision
	}
}

// next: ordered, unique and reliable, each revision comes after the one before.
func (t *tracker) next(revision uint64) {
	if t.synced && revision != t.last+1 {
		t.wrong("revision %d comes after %d", revision, t.last)
	}
	t.last = max(t.last, revision)
}

func (t *tracker) created(event *pailv1.CreatedEvent) {
	if !event.GetInitial() {
		t.next(event.GetRevision())
	}
	name, id := event.GetBucket(), event.GetBucketId()
	if before, lives := t.alive[name]; lives {
		t.wrong("%s is created as %d while %d lives", name, id, before)
	}
	t.alive[name] = id
	if t.lives[id] == nil {
		t.lives[id] = &life{name: name, changes: map[uint64]change{}}
	}
}

func (t *tracker) down(event *pailv1.DownEvent) {
	t.next(event.GetRevision())
	name, id := event.GetBucket(), event.GetBucketId()
	if t.alive[name] != id {
		t.wrong("%s is down as %d, and %d was alive", name, id, t.alive[name])
	}
	delete(t.alive, name)
	of := t.lives[id]
	if of == nil {
		of = &life{name: name, changes: map[uint64]change{}}
		t.lives[id] = of
	}
	if of.down != nil {
		t.wrong("%s is down as %d for the second time", name, id)
	}
	of.down = event
	// Explained: nothing but the clients ends a bucket here, and they say who they are.
	if event.GetReason() != pailv1.Reason_REASON_KILLED || event.GetDetail() == "" {
		t.wrong("%s is down as %d for no reason that was given: %v", name, id, event)
	}
}

func (t *tracker) change(id, version uint64, what change) {
	of := t.lives[id]
	if of == nil || of.down != nil || t.alive[of.name] != id {
		t.wrong("a change of %d, which is not alive", id)
		return
	}
	if version != of.version+1 {
		t.wrong("version %d of %d comes after %d", version, id, of.version)
	}
	of.version = max(of.version, version)
	of.changes[version] = what
}

// watchers are all who watch a load.
type watchers struct {
	*load
	pail       pailv1.BucketServiceClient
	everything *tracker
	resumers   []*tracker
	resumes    atomic.Int64
	compacted  atomic.Int64
	monitored  atomic.Int64
	heartbeats atomic.Int64

	mutex sync.Mutex
	downs []monitored
}

// monitored is what became of one monitor.
type monitored struct {
	id      uint64
	began   uint64 // the revision that it was set at
	resumed bool   // after the bucket's creation, so that no reason is lost
	event   *pailv1.DownEvent
}

// The bucket that is created last.
const theLast = "the-last"

// all hears of everything, on one stream, until the last bucket is created.
func (w *watchers) all(ctx context.Context, begun chan<- struct{}) {
	w.everything = newTracker("the Watch of everything", w.breaks)
	stream, err := w.pail.Watch(ctx, &pailv1.WatchRequest{Prefix: new(string), Entries: true})
	for err == nil && w.everything.alive[theLast] == 0 {
		var response *pailv1.WatchResponse
		if response, err = stream.Recv(); err == nil {
			w.everything.hear(response)
			if response.GetSynced() != nil {
				close(begun)
			}
		}
	}
	if err != nil {
		w.breaks("the Watch of everything had not heard of all, and ended: %v", err)
	}
}

// resume watches the lifecycle on many streams, one after the other.
func (w *watchers) resume(ctx context.Context, t *tracker, random *rand.Rand) {
	registry := ""
	for ctx.Err() == nil {
		request := &pailv1.WatchRequest{Prefix: new(string), Kinds: []pailv1.EventKind{
			pailv1.EventKind_EVENT_KIND_CREATED, pailv1.EventKind_EVENT_KIND_DOWN,
		}}
		if t.synced {
			after := t.last
			request.AfterRevision, request.RegistryId = &after, &registry
			w.resumes.Add(1)
		} else {
			t.reset()
		}
		until, cancel := context.WithTimeout(ctx, time.Duration(1+random.IntN(60))*time.Millisecond)
		stream, err := w.pail.Watch(until, request)
		for err == nil {
			var response *pailv1.WatchResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			if started := response.GetStarted(); started != nil {
				registry = started.GetRegistryId()
				continue
			}
			t.hear(response)
		}
		switch reason := pailclient.ErrorInfo(err).GetReason(); {
		case reason == "REVISION_COMPACTED", reason == "WATCHER_LAGGED":
			// Resumable, or it is said that it is not.
			w.compacted.Add(1)
			t.reset()
		case status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Canceled:
			t.wrong("ended: %v", err)
		}
		cancel()
		// The server's history goes on without it, now and then for long.
		away := 20
		if random.IntN(20) == 0 {
			away = 400
		}
		time.Sleep(time.Duration(random.IntN(away)) * time.Millisecond)
	}
}

// monitor waits for the ends of certain buckets, each of which comes once.
func (w *watchers) monitor(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		w.load.mutex.Lock()
		id := w.lives[random.IntN(names)]
		w.load.mutex.Unlock()
		name := w.nameOf(id)
		if name == "" {
			time.Sleep(time.Millisecond)
			continue
		}
		twice := []*pailv1.Incarnation{{Bucket: name, BucketId: id}, {Bucket: name, BucketId: id}}
		request := &pailv1.WatchRequest{Incarnations: twice}
		resumed := random.IntN(2) == 0
		if resumed {
			request.AfterRevision = &id
		}
		stream, err := w.pail.Watch(ctx, request)
		heard, began := map[uint64]*pailv1.DownEvent{}, uint64(0)
		for err == nil {
			var response *pailv1.WatchResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			if started := response.GetStarted(); started != nil {
				began = response.GetRevision()
				for _, monitor := range started.GetMonitors() {
					heard[monitor.GetRef()] = nil
				}
			}
			for _, event := range response.GetEvents().GetEvents() {
				down := event.GetDown()
				if before, known := heard[down.GetRef()]; down == nil || !known || before != nil {
					w.breaks("a monitor of %d heard: %v, after %v", id, event, before)
					continue
				}
				heard[down.GetRef()] = down
			}
		}
		switch {
		case err == io.EOF:
			w.monitored.Add(1)
			w.mutex.Lock()
			for _, down := range heard {
				w.downs = append(w.downs, monitored{id: id, began: began, resumed: resumed, event: down})
			}
			w.mutex.Unlock()
		case ctx.Err() != nil:
		case resumed && pailclient.ErrorInfo(err).GetReason() == "REVISION_COMPACTED":
		default:
			w.breaks("a monitor of %d ended: %v", id, err)
		}
	}
}

// nameOf finds the name of a bucket that some client has seen.
func (w *watchers) nameOf(id uint64) string {
	w.load.mutex.Lock()
	defer w.load.mutex.Unlock()
	return w.namesOf[id]
}

// quiet watches where nothing happens. Alive: it is heard of all the same.
func (w *watchers) quiet(ctx context.Context) {
	prefix, last := "nobody/", uint64(0)
	stream, err := w.pail.Watch(ctx, &pailv1.WatchRequest{
		Prefix: &prefix, SkipInitial: true, Heartbeat: durationpb.New(time.Second),
	})
	for err == nil {
		var response *pailv1.WatchResponse
		if response, err = stream.Recv(); err == nil {
			if response.GetHeartbeat() != nil {
				w.heartbeats.Add(1)
			}
			if response.GetRevision() < last {
				w.breaks("a quiet Watch is at revision %d after %d", response.GetRevision(), last)
			}
			last = response.GetRevision()
		}
	}
	if ctx.Err() == nil {
		w.breaks("a quiet Watch ended: %v", err)
	}
}

// judge compares what was told with what was answered, and those who were told with each other.
func (w *watchers) judge(history []op) {
	told := w.everything.lives
	for _, op := range history {
		in, out := op.in, op.out
		if out.Unknown || out.Reason != "" {
			continue
		}
		of := told[out.ID]
		if of == nil || of.name != in.Name {
			w.breaks("%+v was answered with %+v, and no Watch has told of that bucket", in, out)
			continue
		}
		// No acknowledged change has a greater version than the end.
		if of.down != nil && out.Version > of.down.GetVersion() && in.Kind != get {
			w.breaks("%+v was answered with %+v, and it went down at version %d", in, out, of.down.GetVersion())
		}
		what, isTold := of.changes[out.Version]
		switch {
		case in.Kind == put && (!isTold || what != change{key: keyOf(in.Key), value: in.Value}):
			w.breaks("%+v was answered with %+v, and what was told of it is %+v", in, out, what)
		case in.Kind == remove && out.Found && (!isTold || what != change{key: keyOf(in.Key), deleted: true}):
			w.breaks("%+v was answered with %+v, and what was told of it is %+v", in, out, what)
		case in.Kind == stop && (of.down == nil || of.down.GetDetail() != detailOf(in, op.client)):
			w.breaks("%+v was answered with %+v, and what was told of it is %v", in, out, of.down)
		}
	}
	for id, of := range told {
		if of.down != nil && of.down.GetVersion() != of.version {
			w.breaks("%d went down at version %d, and its last change was %d", id, of.down.GetVersion(), of.version)
		}
	}
	for _, t := range w.resumers {
		for id, of := range t.lives {
			if known := told[id]; known == nil || of.down != nil && !alike(of.down, known.down) {
				t.wrong("of %d it heard %+v, and the Watch of everything %+v", id, of, known)
			}
		}
		for revision, ids := range t.snapshots {
			sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
			var alive []uint64
			for id, of := range told {
				if id <= revision && (of.down == nil || of.down.GetRevision() > revision) {
					alive = append(alive, id)
				}
			}
			sort.Slice(alive, func(i, j int) bool { return alive[i] < alive[j] })
			if fmt.Sprint(ids) != fmt.Sprint(alive) {
				t.wrong("its snapshot at %d had %v, and %v lived", revision, ids, alive)
			}
		}
	}
	for _, m := range w.downs {
		known := told[m.id]
		switch {
		case m.event == nil:
			w.breaks("a monitor of %d ended and had not fired", m.id)
		case known == nil || known.down == nil:
			w.breaks("a monitor heard of the end of %d, and nobody else: %v", m.id, m.event)
		case m.event.GetReason() == pailv1.Reason_REASON_NOPROC:
			if m.resumed || known.down.GetRevision() > m.began {
				w.breaks("a monitor of %d (set at %d) heard NOPROC, and not %v", m.id, m.began, known.down)
			}
		case !alike(m.event, known.down):
			w.breaks("a monitor of %d heard %v, and not %v", m.id, m.event, known.down)
		}
	}
}

// alike tells whether two were told of the same end.
func alike(one, other *pailv1.DownEvent) bool {
	return other != nil && one.GetBucket() == other.GetBucket() && one.GetRevision() == other.GetRevision() &&
		one.GetReason() == other.GetReason() && one.GetDetail() == other.GetDetail() &&
		one.GetVersion() == other.GetVersion()
}
