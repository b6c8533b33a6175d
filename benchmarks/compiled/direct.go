package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

var endOfReply = []byte("\n\n")

// direct keeps requests in flight on lightningd's own socket: what there is without a gateway.
func direct(arguments []string) error {
	flags := newFlags("direct")
	flags.addPeers()
	socket := flags.String("socket", "", "lightningd's JSON-RPC socket")
	many := flags.Int("in-flight", 32, "requests in flight")
	_ = flags.Parse(arguments)
	peers, err := flags.peerIDs()
	if err != nil {
		return err
	}
	connection, err := net.Dial("unix", *socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	meter := newMeter(flags.timing())
	counts := meter.newCounts()
	requests := make([]string, len(peers)) // what follows the id of a request
	for i, peer := range peers {
		requests[i] = fmt.Sprintf(`,"method":"sendcustommsg","params":{"node_id":"%x","msg":"%s"}}`,
			peer, hex.EncodeToString(flags.message()))
	}
	dues := make([]time.Time, *many) // a request takes the id of one that was answered
	free := make([]int, *many)
	for id := range free {
		free[id] = id
	}
	var out []byte
	sent := 0
	// What a read brings is answered with one write.
	send := func() error {
		now := time.Now()
		out = out[:0]
		for _, id := range free {
			dues[id] = now
			out = append(out, `{"jsonrpc":"2.0","id":`...)
			out = strconv.AppendInt(out, int64(id), 10)
			out = append(out, requests[sent%len(requests)]...)
			sent++
		}
		free = free[:0]
		_, err := connection.Write(out)
		return err
	}
	if err := send(); err != nil {
		return err
	}
	buffer, filled := make([]byte, 1<<18), 0
	for len(free) < *many {
		if err := connection.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		got, err := connection.Read(buffer[filled:])
		if err != nil {
			return fmt.Errorf("lightningd's socket: %w", err)
		}
		now := time.Now()
		filled += got
		rest := buffer[:filled]
		for {
			reply, after, whole := bytes.Cut(rest, endOfReply)
			if !whole {
				break
			}
			rest = after
			id, err := idOf(reply)
			if err != nil || id < 0 || id >= *many {
				return fmt.Errorf("an unexpected reply of lightningd: %.200s", reply)
			}
			if bytes.Contains(reply, []byte(`"result"`)) {
				counts.answered(1, now)
				counts.took(dues[id], now)
			} else {
				counts.failed(string(reply))
			}
			free = append(free, id)
		}
		filled = copy(buffer, rest)
		if !meter.isOver() && len(free) > 0 {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return printLine(meter.report())
}

// idOf returns the id of a reply, which is a number.
func idOf(reply []byte) (int, error) {
	_, after, found := bytes.Cut(reply, []byte(`"id":`))
	if !found {
		return 0, errors.New("no id")
	}
	end := bytes.IndexAny(after, ",}")
	if end < 0 {
		return 0, errors.New("no end of the id")
	}
	return strconv.Atoi(string(bytes.TrimSpace(after[:end])))
}
