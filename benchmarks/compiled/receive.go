package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"custommsg/benchmarks/compiled/gen/cln"
	"custommsg/benchmarks/compiled/gen/custommsgv1"
)

// What a message holds behind its type: when it was due, who sent it, its number, and which run it is of.
const (
	atDue    = 0
	atSender = 8
	atNumber = 10
	atRun    = 18
	markSize = 22
)

const (
	// pause is how long the source rests when it may not send more.
	pause = 200 * time.Microsecond
	// arrivalTime is how long nothing may arrive before what is missing counts as lost.
	arrivalTime = 3 * time.Second
	// stallTime is how long nothing may arrive before more is sent, to see whether something is lost.
	stallTime = time.Second
	// flushSize is how many messages are queued at most before they are written.
	flushSize = 64
)

// subscription is how a contract is subscribed to.
type subscription struct {
	method   string
	request  func() proto.Message
	scan     func(response []byte, take func(payload []byte)) error
	isSilent bool // the server says with its headers that the subscription is there, not with a first response
}

var subscriptions = map[string]subscription{
	"native": {
		method:  "/custommsg.v1.CustomMsgService/SubscribeCustomMsgs",
		request: func() proto.Message { return new(custommsgv1.SubscribeCustomMsgsRequest) },
		scan:    scanNative,
	},
	"cln": {
		method:   "/cln.Node/SubscribeCustomMsg",
		request:  func() proto.Message { return new(cln.StreamCustomMsgRequest) },
		scan:     scanCln,
		isSilent: true,
	},
}

// subscriber counts what it gets, and checks that nothing is missing.
type subscriber struct {
	started   time.Time // what the times in messages count from
	run       uint32
	wanted    func(due time.Time) bool // whose latency is kept
	received  atomic.Int64
	lost      atomic.Int64
	next      []uint64 // the number of each sender's next message
	latencies []time.Duration
	failure   error // read it after the subscriber has ended
}

// take takes one message.
func (s *subscriber) take(payload []byte) {
	if len(payload) < markSize || binary.BigEndian.Uint32(payload[atRun:]) != s.run {
		return // of an earlier run
	}
	sender := binary.BigEndian.Uint16(payload[atSender:])
	number := binary.BigEndian.Uint64(payload[atNumber:])
	if int(sender) >= len(s.next) || number < s.next[sender] {
		s.failure = fmt.Errorf("message %d of sender %d came twice, or too late", number, sender)
		return
	}
	s.lost.Add(int64(number - s.next[sender]))
	s.next[sender] = number + 1
	s.received.Add(1)
	due := s.started.Add(time.Duration(binary.BigEndian.Uint64(payload[atDue:])))
	if s.wanted(due) {
		s.latencies = append(s.latencies, time.Since(due))
	}
}

// follow subscribes, says so, and takes what comes. A server that has skipped messages ends the stream: then it
// subscribes anew, and what is missing is lost.
func (s *subscriber) follow(ctx context.Context, connection *grpc.ClientConn, via subscription, ready func()) error {
	codec := grpc.ForceCodecV2(scanner{scan: via.scan})
	for {
		opened, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, via.method, codec, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if err := opened.SendMsg(via.request()); err != nil {
			return err
		}
		if err := opened.CloseSend(); err != nil {
			return err
		}
		into := &arrivals{take: s.take}
		if _, err := opened.Header(); err != nil {
			return err
		}
		if !via.isSilent {
			if err := opened.RecvMsg(into); err != nil {
				return err
			}
		}
		ready()
		for err == nil {
			err = opened.RecvMsg(into)
		}
		if ctx.Err() != nil {
			return nil
		}
		if !isDataLoss(err) {
			return err
		}
		ready = func() {}
	}
}

func isDataLoss(err error) bool { return status.Code(err) == codes.DataLoss }

// receive measures subscribers.
func receive(arguments []string) error {
	flags := newFlags("receive")
	flags.addServer()
	subscribers := flags.Int("subscribers", 1, "subscribers, each with a connection of its own")
	senders := flags.Int("senders", 16, "peers that send; a node reads at most 1 MB/s of each")
	window := flags.Int("window", 1000, "messages that are on their way to the slowest subscriber, at most")
	rate := flags.Float64("rate", 0, "messages a second, sent when they are due; 0: as many as the window lets through")
	node := flags.String("node", "", "the node that the peers connect to: id@host:port")
	channel := flags.Int("channel", -1, "instead of a node: the descriptor of a plugin channel, to play lightningd on it")
	kind := flags.String("channel-kind", "hook", "what goes over that channel: hook or notification")
	_ = flags.Parse(arguments)
	via, ok := subscriptions[*flags.contract]
	if !ok {
		return fmt.Errorf("no contract is called %q", *flags.contract)
	}
	if *flags.size < 2+markSize {
		return fmt.Errorf("--size must be at least %d: a message holds its time and number", 2+markSize)
	}
	from, err := newSource(*node, *channel, *kind, *senders)
	if err != nil {
		return err
	}
	defer from.close()
	run := &reception{
		from: from, flags: flags, window: *window, rate: *rate, senders: *senders, number: rand.Uint32(),
		started: time.Now(),
	}
	return run.measure(*subscribers, via)
}

func newSource(node string, channel int, kind string, senders int) (source, error) {
	if channel >= 0 {
		return newChannelSource(channel, kind == "hook", senders)
	}
	if node == "" {
		return nil, errors.New("receive needs --node or --channel")
	}
	return newPeersSource(node, senders)
}

// reception is one run of receive.
type reception struct {
	from        source
	flags       *Flags
	window      int
	rate        float64
	senders     int
	number      uint32
	started     time.Time
	subscribers []*subscriber
	sent        int
	slowest     int64 // what the slowest subscriber has dealt with, when we last looked
	progress    time.Time // when that was more than before
	begin, end  time.Time
}

func (r *reception) measure(subscribers int, via subscription) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failures := make(chan error, subscribers)
	var group, subscribed sync.WaitGroup
	subscribed.Add(subscribers)
	for range subscribers {
		one := &subscriber{
			started: r.started, run: r.number, next: make([]uint64, r.senders),
			// Where messages are sent as fast as possible, they wait for each other: that is no latency to report.
			wanted: func(due time.Time) bool { return r.rate > 0 && !due.Before(r.begin) && due.Before(r.end) },
		}
		r.subscribers = append(r.subscribers, one)
		connection, err := r.flags.dial()
		if err != nil {
			return err
		}
		defer connection.Close()
		group.Go(func() {
			if err := one.follow(ctx, connection, via, subscribed.Done); err != nil {
				failures <- err
			}
		})
	}
	all := make(chan struct{})
	go func() { subscribed.Wait(); close(all) }()
	select {
	case <-all:
	case err := <-failures:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the subscribers were not ready after 20 s")
	}

	timing := r.flags.timing()
	r.begin = time.Now().Add(timing.warmUp)
	r.end = r.begin.Add(timing.seconds)
	var before, after int64
	var used time.Duration
	measured := make(chan struct{})
	time.AfterFunc(timing.warmUp, func() { before, used = r.received(), -cpuTime() })
	time.AfterFunc(timing.warmUp+timing.seconds, func() {
		after = r.received()
		used += cpuTime()
		close(measured)
	})
	if err := r.send(failures); err != nil {
		return err
	}
	if err := r.from.settle(); err != nil {
		return err
	}
	r.waitForArrivals()
	<-measured
	cancel()
	group.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	seconds := timing.seconds.Seconds()
	report := Report{
		Seconds: seconds, Messages: int(after - before), Total: r.sent, CPUS: cpuTime().Seconds(),
		PerS: float64(after-before) / seconds / float64(subscribers), LoadBusy: used.Seconds() / seconds,
	}
	var latencies []time.Duration
	for _, one := range r.subscribers {
		if one.failure != nil {
			return one.failure
		}
		report.Lost += r.sent - int(one.received.Load())
		latencies = append(latencies, one.latencies...)
	}
	report.P50Ms, report.P99Ms = percentiles(latencies)
	return printLine(report)
}

// send sends until the measured time is over.
func (r *reception) send(failures <-chan error) error {
	messages := make([][]byte, r.senders)
	for sender := range messages {
		messages[sender] = r.flags.message()
		binary.BigEndian.PutUint16(messages[sender][2+atSender:], uint16(sender))
		binary.BigEndian.PutUint32(messages[sender][2+atRun:], r.number)
	}
	numbers := make([]uint64, r.senders)
	first, queued := time.Now(), 0
	for {
		now := time.Now()
		if now.After(r.end.Add(pause)) {
			return r.from.flush()
		}
		due := now
		if r.rate > 0 {
			due = first.Add(time.Duration(float64(r.sent) / r.rate * float64(time.Second)))
		}
		if wait := due.Sub(now); wait > 0 || queued == flushSize || r.isFull() {
			queued = 0
			if err := r.from.flush(); err != nil {
				return err
			}
			select {
			case err := <-failures:
				return err
			default:
			}
			if wait > 0 {
				time.Sleep(wait)
			} else if r.isFull() {
				time.Sleep(pause)
			}
			continue
		}
		sender := r.sent % r.senders
		message := messages[sender][2:]
		binary.BigEndian.PutUint64(message[atDue:], uint64(due.Sub(r.started)))
		binary.BigEndian.PutUint64(message[atNumber:], numbers[sender])
		numbers[sender]++
		r.from.queue(sender, messages[sender])
		r.sent++
		queued++
	}
}

// isFull says whether as much is on its way to the slowest subscriber as may be. At a fixed rate nothing waits.
func (r *reception) isFull() bool {
	if r.rate > 0 || int64(r.sent)-r.slowest < int64(r.window) {
		return false
	}
	slowest := int64(r.sent)
	for _, one := range r.subscribers {
		slowest = min(slowest, one.received.Load()+one.lost.Load())
	}
	if slowest > r.slowest || r.progress.IsZero() {
		r.slowest, r.progress = slowest, time.Now()
	} else if time.Since(r.progress) > stallTime {
		// A subscriber learns from the next message that others are lost; so there must be one.
		r.slowest, r.progress = r.slowest+flushSize, time.Now()
	}
	return int64(r.sent)-r.slowest >= int64(r.window)
}

func (r *reception) received() (sum int64) {
	for _, one := range r.subscribers {
		sum += one.received.Load()
	}
	return sum
}

// waitForArrivals waits until everything has arrived, or nothing does any more.
func (r *reception) waitForArrivals() {
	all, last, since := int64(r.sent*len(r.subscribers)), int64(-1), time.Now()
	for {
		now := r.received()
		if now != last {
			last, since = now, time.Now()
		}
		if now >= all || time.Since(since) > arrivalTime {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
