module example.com/pail-tests

go 1.26.0

require (
	example.com/pail-client v0.0.0
	github.com/anishathalye/porcupine v1.0.3
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261110000943-09e21b237f2c // indirect
)

replace example.com/pail-client => ../../clients/go
