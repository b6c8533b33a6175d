package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// The messages of BOLT 1 that a peer must speak.
const (
	typeInit   = 16
	typePing   = 18
	typePong   = 19
	maxMessage = 65_535
	maxPong    = 65_531 // a ping that asks for more wants no answer
)

// features are what other nodes ask for: data_loss_protect, var_onion, static_remotekey, payment_secret (BOLT 9).
var features = []byte{0xa2, 0x02}

// peer is a Lightning node of little use: it sends what it is told, and discards what it gets.
type peer struct {
	connection net.Conn
	mutex      sync.Mutex // of what follows: a pong is sent from another goroutine
	encrypt    *encryptor
	out        []byte
}

// peerKey returns the key of a peer: the same for the same seed, so that a node sees few peers over many runs.
func peerKey(seed string, number int) *secp256k1.PrivateKey {
	sum := sha256.Sum256(fmt.Appendf(nil, "custommsg benchmark %s %d", seed, number))
	return secp256k1.PrivKeyFromBytes(sum[:])
}

// connectPeer connects to a node, `id@host:port`.
func connectPeer(node string, key *secp256k1.PrivateKey) (*peer, error) {
	text, address, found := strings.Cut(node, "@")
	id, err := hex.DecodeString(text)
	if err != nil || !found {
		return nil, fmt.Errorf("%q is not a node; write id@host:port", node)
	}
	remote, err := secp256k1.ParsePubKey(id)
	if err != nil {
		return nil, err
	}
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	ephemeral, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	encrypt, decrypt, err := dialNoise(connection, key, ephemeral, remote)
	if err != nil {
		_ = connection.Close()
		return nil, err
	}
	made := &peer{connection: connection, encrypt: encrypt}
	initial := binary.BigEndian.AppendUint16(nil, typeInit)
	initial = append(initial, 0, 0, 0, byte(len(features)))
	if err := made.send(append(initial, features...)); err != nil {
		return nil, err
	}
	from, buffer := bufio.NewReaderSize(connection, 1<<16), make([]byte, maxMessage+macSize)
	first, err := decrypt.read(from, buffer)
	if err != nil || len(first) < 2 || binary.BigEndian.Uint16(first) != typeInit {
		_ = connection.Close()
		return nil, errors.New("the node did not begin with init")
	}
	go made.discard(decrypt, from, buffer)
	return made, nil
}

// queue keeps a message until flush.
func (p *peer) queue(message []byte) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.out = p.encrypt.append(p.out, message)
}

// flush writes what is queued.
func (p *peer) flush() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.connection.Write(p.out)
	p.out = p.out[:0]
	return err
}

func (p *peer) send(message []byte) error {
	p.queue(message)
	return p.flush()
}

func (p *peer) close() { _ = p.connection.Close() }

// discard reads until the connection ends, and answers pings: a node drops a peer that does not.
func (p *peer) discard(decrypt *decryptor, from *bufio.Reader, buffer []byte) {
	for {
		message, err := decrypt.read(from, buffer)
		if err != nil {
			return
		}
		if len(message) < 4 || binary.BigEndian.Uint16(message) != typePing {
			continue
		}
		if wanted := binary.BigEndian.Uint16(message[2:]); wanted <= maxPong {
			pong := binary.BigEndian.AppendUint16(nil, typePong)
			pong = binary.BigEndian.AppendUint16(pong, wanted)
			if p.send(append(pong, make([]byte, wanted)...)) != nil {
				return
			}
		}
	}
}

// holdPeers keeps peers connected until stdin ends. It prints their node ids, as a JSON list.
func holdPeers(arguments []string) error {
	flags := newFlags("peers")
	nodes := flags.String("nodes", "", "where they connect to: id@host:port, with commas")
	count := flags.Int("count", 16, "how many")
	_ = flags.Parse(arguments)
	var ids []string
	for number := range *count {
		key := peerKey("receiver", number)
		for node := range strings.SplitSeq(*nodes, ",") {
			connected, err := connectPeer(node, key)
			if err != nil {
				return err
			}
			defer connected.close()
		}
		ids = append(ids, hex.EncodeToString(key.PubKey().SerializeCompressed()))
	}
	if err := printLine(ids); err != nil {
		return err
	}
	untilStdinEnds()
	return nil
}
