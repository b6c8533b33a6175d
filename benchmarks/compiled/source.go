package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// source is where received messages come from.
type source interface {
	// queue keeps a message of a sender until flush.
	queue(sender int, message []byte)
	flush() error
	// settle waits until everything is answered that wants an answer.
	settle() error
	close()
}

// peersSource is peers that are connected to a real node.
type peersSource []*peer

func newPeersSource(node string, senders int) (source, error) {
	var made peersSource
	for number := range senders {
		connected, err := connectPeer(node, peerKey("sender", number))
		if err != nil {
			made.close()
			return nil, err
		}
		made = append(made, connected)
	}
	return made, nil
}

func (s peersSource) queue(sender int, message []byte) { s[sender].queue(message) }

func (s peersSource) flush() error {
	for _, connected := range s {
		if err := connected.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (s peersSource) settle() error { return nil }

func (s peersSource) close() {
	for _, connected := range s {
		connected.close()
	}
}

// channelSource plays lightningd on a plugin channel that is open and introduced already: it makes hook calls, or
// sends notifications, without waiting for answers, as lightningd does.
type channelSource struct {
	connection net.Conn
	ids        []string
	isHook     bool
	prefix     string // of our ids, which are unlike those of other runs
	out        []byte
	asked      int
	answered   atomic.Int64
	failure    atomic.Pointer[error]
}

var hookAnswer = []byte(`{"result":"continue"}`)

const settleTime = 30 * time.Second

func newChannelSource(descriptor int, isHook bool, senders int) (source, error) {
	file := os.NewFile(uintptr(descriptor), "channel")
	connection, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return nil, fmt.Errorf("the plugin channel: %w", err)
	}
	made := &channelSource{
		connection: connection, isHook: isHook, prefix: fmt.Sprintf("cln:custommsg#%d.", os.Getpid()),
	}
	for number := range senders {
		key := peerKey("sender", number)
		made.ids = append(made.ids, hex.EncodeToString(key.PubKey().SerializeCompressed()))
	}
	go made.read()
	return made, nil
}

// queue writes what lightningd writes, field by field in its order.
func (s *channelSource) queue(sender int, message []byte) {
	if s.isHook {
		s.out = append(s.out, `{"jsonrpc":"2.0","id":"`...)
		s.out = append(s.out, s.prefix...)
		s.out = strconv.AppendInt(s.out, int64(s.asked), 10)
		s.out = append(s.out, `","method":"custommsg","params":{"payload":"`...)
		s.out = hex.AppendEncode(s.out, message)
		s.out = append(s.out, `","peer_id":"`...)
		s.out = append(s.out, s.ids[sender]...)
		s.out = append(s.out, "\"}}\n\n"...)
		s.asked++
		return
	}
	s.out = append(s.out, `{"jsonrpc":"2.0","method":"custommsg","params":{"custommsg":{"peer_id":"`...)
	s.out = append(s.out, s.ids[sender]...)
	s.out = append(s.out, `","payload":"`...)
	s.out = hex.AppendEncode(s.out, message)
	s.out = append(s.out, "\"}}}\n\n"...)
}

func (s *channelSource) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.connection.Write(s.out)
	s.out = s.out[:0]
	return err
}

func (s *channelSource) settle() error {
	for end := time.Now().Add(settleTime); s.answered.Load() < int64(s.asked); time.Sleep(pause) {
		if failure := s.failure.Load(); failure != nil {
			return *failure
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d hook calls were not answered", int64(s.asked)-s.answered.Load(), s.asked)
		}
	}
	return nil
}

func (s *channelSource) close() { _ = s.connection.Close() }

// read takes the answers, and finds the one that would have ended lightningd.
func (s *channelSource) read() {
	own := []byte(`"id":"` + s.prefix)
	frames := bufio.NewScanner(bufio.NewReaderSize(s.connection, 1<<18))
	frames.Buffer(make([]byte, 1<<16), 1<<20)
	frames.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if end := bytes.Index(data, endOfReply); end >= 0 {
			return end + len(endOfReply), data[:end], nil
		}
		return 0, nil, nil
	})
	for frames.Scan() {
		frame := frames.Bytes()
		if bytes.IndexByte(frame, ' ') >= 0 {
			frame = bytes.ReplaceAll(frame, []byte(" "), nil)
		}
		if !bytes.Contains(frame, own) {
			continue // a line for lightningd's log, or the rest of an earlier run
		}
		if !bytes.Contains(frame, hookAnswer) {
			err := errors.New("an answer that would end lightningd: " + string(frame))
			s.failure.Store(&err)
			return
		}
		s.answered.Add(1)
	}
}
