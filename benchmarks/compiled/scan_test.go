package main

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"custommsg/benchmarks/compiled/gen/cln"
	"custommsg/benchmarks/compiled/gen/custommsgv1"
)

func payloadsOf(t *testing.T, scan func([]byte, func([]byte)) error, message proto.Message) []string {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	if err := scan(data, func(payload []byte) { found = append(found, string(payload)) }); err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && scan(data[:len(data)-1], func([]byte) {}) == nil {
		t.Error("a response that was cut short was accepted")
	}
	return found
}

// The payloads of a native response are found, and an event that is no message has none.
func TestNativePayloadsAreFound(t *testing.T) {
	response := &custommsgv1.SubscribeCustomMsgsResponse{Position: "p"}
	for _, text := range []string{"one", "two"} {
		response.Events = append(response.Events, &custommsgv1.Event{
			Position: "p", Time: timestamppb.Now(), PeerId: make([]byte, 33), PeerIdHex: "02",
			Kind: &custommsgv1.Event_Message{Message: &custommsgv1.TypedMsg{Type: 7, Payload: []byte(text)}},
		})
	}
	response.Events = append(response.Events, &custommsgv1.Event{
		Kind: &custommsgv1.Event_PeerConnected{PeerConnected: &custommsgv1.PeerConnected{}},
	})
	if found := payloadsOf(t, scanNative, response); !slices.Equal(found, []string{"one", "two"}) {
		t.Errorf("found %q", found)
	}
}

// The payload of a notification of cln-grpc is found behind the type.
func TestPayloadOfCoreLightningIsFound(t *testing.T) {
	notification := &cln.CustomMsgNotification{PeerId: make([]byte, 33), Payload: []byte("..one")}
	if found := payloadsOf(t, scanCln, notification); !slices.Equal(found, []string{"one"}) {
		t.Errorf("found %q", found)
	}
}
