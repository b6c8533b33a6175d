package main

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// scripted plays the peer: it answers with fixed bytes, and keeps what was written.
type scripted struct {
	bytes.Reader
	written bytes.Buffer
}

func (s *scripted) Write(data []byte) (int, error) { return s.written.Write(data) }

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// handshakeOfBolt8 is the initiator's test vector of BOLT 8, appendix A.
func handshakeOfBolt8(t *testing.T, actTwo string) (*scripted, *encryptor, error) {
	t.Helper()
	peer := &scripted{}
	peer.Reset(fromHex(t, actTwo))
	remote, err := secp256k1.ParsePubKey(fromHex(t, "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"))
	if err != nil {
		t.Fatal(err)
	}
	own := secp256k1.PrivKeyFromBytes(bytes.Repeat([]byte{0x11}, 32))
	ephemeral := secp256k1.PrivKeyFromBytes(bytes.Repeat([]byte{0x12}, 32))
	encrypt, _, err := dialNoise(peer, own, ephemeral, remote)
	return peer, encrypt, err
}

const actTwo = "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae"

// The handshake writes what BOLT 8 says, byte for byte.
func TestHandshakeIsBolt8s(t *testing.T) {
	peer, _, err := handshakeOfBolt8(t, actTwo)
	if err != nil {
		t.Fatal(err)
	}
	want := "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a" +
		"00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139ba"
	if got := hex.EncodeToString(peer.written.Bytes()); got != want {
		t.Errorf("wrote %s, not %s", got, want)
	}
}

// A peer that does not own its node id is found out.
func TestHandshakeChecksThePeer(t *testing.T) {
	if _, _, err := handshakeOfBolt8(t, actTwo[:98]+"af"); err == nil {
		t.Error("a wrong MAC was accepted")
	}
}

// Messages are encrypted as BOLT 8 says, across two replacements of the key.
func TestTransportIsBolt8s(t *testing.T) {
	_, encrypt, err := handshakeOfBolt8(t, actTwo)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]string{
		0:    "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
		1:    "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
		500:  "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
		501:  "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
		1000: "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
		1001: "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
	}
	for number := range 1002 {
		sent := hex.EncodeToString(encrypt.append(nil, []byte("hello")))
		if expected, listed := want[number]; listed && sent != expected {
			t.Errorf("message %d is %s, not %s", number, sent, expected)
		}
	}
}
