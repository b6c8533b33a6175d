package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"

	"custommsg/benchmarks/compiled/gen/custommsgv1"
)

const (
	// inFlight is how many messages of a stream are unanswered at most, as in the Python load.
	inFlight = 1024
	// largestBatch is how many messages the batching client puts into a request at most.
	largestBatch = 256
)

var streamDescription = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// openStream opens one SendCustomMsgStream, and waits until the connection is there.
func (f *Flags) openStream() (grpc.ClientStream, func(), error) {
	connection, err := f.dial()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.timing().warmUp+f.timing().seconds+time.Minute)
	end := func() { cancel(); _ = connection.Close() }
	method := "/custommsg.v1.CustomMsgService/SendCustomMsgStream"
	opened, err := connection.NewStream(ctx, streamDescription, method, grpc.WaitForReady(true))
	if err != nil {
		end()
		return nil, nil, err
	}
	return opened, end, nil
}

// readResults hands over the results of a stream until it ends.
func readResults(opened grpc.ClientStream, take func(results []*custommsgv1.SendResult, now time.Time)) error {
	for {
		response := new(custommsgv1.SendCustomMsgStreamResponse)
		if err := opened.RecvMsg(response); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		take(response.Results, time.Now())
	}
}

// stream sends batches of a fixed size, a bounded number of messages in flight.
func stream(arguments []string) error {
	flags := newFlags("stream")
	flags.addServer()
	flags.addPeers()
	batch := flags.Int("batch", 64, "messages in a request")
	_ = flags.Parse(arguments)
	peers, err := flags.peerIDs()
	if err != nil {
		return err
	}
	opened, end, err := flags.openStream()
	if err != nil {
		return err
	}
	defer end()
	meter, message := newMeter(flags.timing()), flags.message()
	counts := meter.newCounts()
	requests := max(1, inFlight / *batch)
	room := make(chan struct{}, 2*inFlight) // one token for each message that may be sent
	for range requests * *batch {
		room <- struct{}{}
	}
	dues := sync.Map{} // by the number of a batch's last message
	var broken error
	var reading sync.WaitGroup
	reading.Go(func() {
		broken = readResults(opened, func(results []*custommsgv1.SendResult, now time.Time) {
			sent := 0
			for _, result := range results {
				if result.GetError() != nil {
					counts.failed(result.GetError().GetMessage())
				} else {
					sent++
				}
				if due, ok := dues.LoadAndDelete(result.Number); ok {
					counts.took(due.(time.Time), now)
				}
				room <- struct{}{}
			}
			counts.answered(sent, now)
		})
	})
	for number := uint64(0); !meter.isOver(); {
		for range *batch {
			<-room
		}
		request := &custommsgv1.SendCustomMsgStreamRequest{Messages: make([]*custommsgv1.OutboundMsg, *batch)}
		for i := range request.Messages {
			request.Messages[i] = outbound(peers[number%uint64(len(peers))], message, number)
			number++
		}
		dues.Store(number-1, time.Now())
		if err := opened.SendMsg(request); err != nil {
			break // the reader gets the status
		}
	}
	_ = opened.CloseSend()
	reading.Wait()
	if broken != nil {
		return broken
	}
	return printLine(meter.report())
}

// queued is a message of one caller of the batching client.
type queued struct {
	peer   []byte
	number uint64
}

// batched lets callers share one stream, on which what they send at once goes out together.
//
// It is what the client library's sender does: a request leaves as soon as the one before it was handed to gRPC, and
// takes whatever is waiting by then. The callers that a response has woken run first, so that theirs go together.
func batched(arguments []string) error {
	flags := newFlags("batched")
	flags.addServer()
	flags.addPeers()
	callers := flags.Int("callers", 64, "callers, each with one message at a time")
	_ = flags.Parse(arguments)
	peers, err := flags.peerIDs()
	if err != nil {
		return err
	}
	opened, end, err := flags.openStream()
	if err != nil {
		return err
	}
	defer end()
	meter, message := newMeter(flags.timing()), flags.message()
	queue := make(chan *queued, *callers)
	waiting := make([]chan *custommsgv1.SendResult, *callers) // the caller's number is the message's
	broken, ended := error(nil), make(chan struct{})
	go func() {
		defer close(ended)
		broken = readResults(opened, func(results []*custommsgv1.SendResult, _ time.Time) {
			for _, result := range results {
				waiting[result.Number] <- result
			}
		})
	}()
	var group sync.WaitGroup
	for caller := range *callers {
		counts := meter.newCounts()
		waiting[caller] = make(chan *custommsgv1.SendResult, 1)
		group.Go(func() {
			for at := caller; !meter.isOver(); at++ {
				due := time.Now()
				queue <- &queued{peer: peers[at%len(peers)], number: uint64(caller)}
				select {
				case result := <-waiting[caller]:
					now := time.Now()
					if result.GetError() != nil {
						counts.failed(result.GetError().GetMessage())
					} else {
						counts.answered(1, now)
						counts.took(due, now)
					}
				case <-ended:
					return
				}
			}
		})
	}
	go func() {
		group.Wait()
		close(queue)
	}()
	for first := range queue {
		runtime.Gosched()
		request := &custommsgv1.SendCustomMsgStreamRequest{}
		for next, more := first, true; more; {
			request.Messages = append(request.Messages, outbound(next.peer, message, next.number))
			if len(request.Messages) == largestBatch {
				break
			}
			select {
			case next, more = <-queue:
			default:
				more = false
			}
		}
		_ = opened.SendMsg(request) // if it fails, the reader gets the status
	}
	_ = opened.CloseSend()
	<-ended
	if broken != nil {
		return broken
	}
	return printLine(meter.report())
}
