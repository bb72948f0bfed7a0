package pailclient

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// ErrorInfo tells why a call failed, for programs: pail's reason and the facts that come with it. It is nil, whose
// getters answer with nothing, where the error is not pail's own. What a Pipeline or a Link answers in place of a
// result becomes such an error by status.FromProto(…).Err().
func ErrorInfo(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "pail" {
			return info
		}
	}
	return nil
}
