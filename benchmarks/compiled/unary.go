package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"custommsg/benchmarks/compiled/gen/cln"
	"custommsg/benchmarks/compiled/gen/custommsgv1"
)

// contract is how one message is sent in a contract.
type contract struct {
	method   string
	request  func(peer, message []byte) proto.Message
	response func() proto.Message
}

var contracts = map[string]contract{
	"native": {
		method: "/custommsg.v1.CustomMsgService/SendCustomMsg",
		request: func(peer, message []byte) proto.Message {
			return &custommsgv1.SendCustomMsgRequest{Message: outbound(peer, message, 0)}
		},
		response: func() proto.Message { return new(custommsgv1.SendCustomMsgResponse) },
	},
	"cln": {
		method: "/cln.Node/SendCustomMsg",
		request: func(peer, message []byte) proto.Message {
			return &cln.SendcustommsgRequest{NodeId: peer, Msg: message}
		},
		response: func() proto.Message { return new(cln.SendcustommsgResponse) },
	},
}

func outbound(peer, message []byte, number uint64) *custommsgv1.OutboundMsg {
	return &custommsgv1.OutboundMsg{
		Peer:    &custommsgv1.OutboundMsg_PeerId{PeerId: peer},
		Message: &custommsgv1.OutboundMsg_Msg{Msg: message},
		Number:  number,
	}
}

// unary lets callers call again and again.
func unary(arguments []string) error {
	flags := newFlags("unary")
	flags.addServer()
	flags.addPeers()
	callers := flags.Int("callers", 1, "callers, each with one call at a time")
	connections := flags.Int("connections", 1, "client connections that they share")
	_ = flags.Parse(arguments)
	peers, err := flags.peerIDs()
	if err != nil {
		return err
	}
	via, ok := contracts[*flags.contract]
	if !ok {
		return fmt.Errorf("no contract is called %q", *flags.contract)
	}
	var opened []*grpc.ClientConn
	for range *connections {
		connection, err := flags.dial()
		if err != nil {
			return err
		}
		defer connection.Close()
		opened = append(opened, connection)
	}
	message := flags.message()
	// One call before the clock starts: it opens the connections, and says at once what is wrong.
	ctx, cancel := context.WithTimeout(context.Background(), flags.timing().warmUp+flags.timing().seconds+time.Minute)
	defer cancel()
	for _, connection := range opened {
		err := connection.Invoke(ctx, via.method, via.request(peers[0], message), via.response(), grpc.WaitForReady(true))
		if err != nil {
			return err
		}
	}
	meter := newMeter(flags.timing())
	var group sync.WaitGroup
	for number := range *callers {
		counts, connection := meter.newCounts(), opened[number%len(opened)]
		group.Go(func() {
			for at := number; !meter.isOver(); at++ {
				due := time.Now()
				request := via.request(peers[at%len(peers)], message)
				if err := connection.Invoke(ctx, via.method, request, via.response()); err != nil {
					counts.failed(err.Error())
					continue
				}
				now := time.Now()
				counts.answered(1, now)
				counts.took(due, now)
			}
		})
	}
	group.Wait()
	report := meter.report()
	report.Total += len(opened)
	return printLine(report)
}
