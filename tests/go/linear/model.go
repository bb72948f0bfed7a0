package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// What can be asked of a bucket.
type kind int

const (
	create kind = iota
	lookup
	put
	get
	remove
	stop
)

func (k kind) String() string {
	return [...]string{"create", "lookup", "put", "get", "delete", "stop"}[k]
}

// input is a call. The name is what histories are cut by.
type input struct {
	Kind     kind
	Name     string
	ID       uint64 // 0 for any
	Key      int
	Value    int64
	Expected int64 // of a put: the version, or -1 for any
}

// output is an answer. Where there was none, Unknown is set: the call may have happened, then or later, or never.
type output struct {
	Unknown bool
	Reason  string // of an error
	Created bool
	ID      uint64
	Version uint64 // the bucket's, but of a get the entry's
	Value   int64
	Found   bool   // of a delete: whether it removed something
	Actual  uint64 // of a VERSION_MISMATCH
}

const keys = 3

type entry struct {
	Version uint64 // 0 for none
	Value   int64
}

// state is all there is to know of a name. It has no pointers, so that two can be compared.
type state struct {
	Alive   bool
	ID      uint64 // 0 for one that was created by a call without an answer, until it is seen
	Last    uint64 // the greatest id there was
	Version uint64
	Entries [keys]entry
}

// is tells whether the bucket may have this id, and notes it.
func (s *state) is(id uint64) bool {
	if !s.Alive {
		return false
	}
	if s.ID == 0 && id > s.Last {
		s.ID, s.Last = id, id
	}
	return s.ID == id
}

func step(before, in, out any) (bool, any) {
	s, asked, answer := before.(state), in.(input), out.(output)
	ok := s.step(asked, answer)
	return ok, s
}

func (s *state) step(in input, out output) bool {
	isMeant := s.Alive && (in.ID == 0 || in.ID == s.ID)
	if out.Reason == "BUCKET_NOT_FOUND" {
		return !isMeant
	}
	if in.Kind != create && !isMeant {
		return out.Unknown
	}
	e := &s.Entries[in.Key]
	switch in.Kind {
	case create:
		if s.Alive {
			return out.Unknown || !out.Created && s.is(out.ID) && out.Version == s.Version
		}
		if out.Unknown {
			*s = state{Alive: true, Last: s.Last}
			return true
		}
		isNew := out.Created && out.ID > s.Last
		*s = state{Alive: true, ID: out.ID, Last: out.ID}
		return isNew && out.Version == 0
	case lookup:
		return s.is(out.ID) && out.Version == s.Version
	case put:
		isExpected := in.Expected < 0 || uint64(in.Expected) == e.Version
		switch {
		case out.Reason == "VERSION_MISMATCH":
			return !isExpected && out.Actual == e.Version
		case !isExpected:
			return out.Unknown
		}
		s.Version++
		*e = entry{s.Version, in.Value}
		return out.Unknown || out.Reason == "" && s.is(out.ID) && out.Version == s.Version
	case get:
		if out.Reason == "KEY_NOT_FOUND" {
			return e.Version == 0
		}
		return s.is(out.ID) && *e == entry{out.Version, out.Value} && e.Version != 0
	case remove:
		found := e.Version != 0
		if found {
			s.Version++
			*e = entry{}
		}
		return out.Unknown || out.Found == found && s.is(out.ID) && out.Version == s.Version
	case stop:
		ok := out.Unknown || s.is(out.ID)
		*s = state{Last: s.Last}
		return ok
	}
	return false
}

// check looks for an order of the calls that explains all answers.
func check(history []porcupine.Operation) (porcupine.CheckResult, porcupine.LinearizationInfo, porcupine.Model) {
	model := porcupine.Model{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			byName := map[string][]porcupine.Operation{}
			for _, op := range all {
				name := op.Input.(input).Name
				byName[name] = append(byName[name], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byName {
				parts = append(parts, part)
			}
			return parts
		},
		Init:              func() any { return state{} },
		Step:              step,
		Equal:             func(one, other any) bool { return one.(state) == other.(state) },
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
	result, info := porcupine.CheckOperationsVerbose(model, history, checkTime)
	return result, info, model
}

// never is when a call returns that has no answer.
const never = math.MaxInt64
