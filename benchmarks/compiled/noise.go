package main

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"golang.org/x/crypto/chacha20poly1305"
)

// BOLT 8: the handshake of the side that dials, and the encrypted transport after it.

const (
	noiseName   = "Noise_XK_secp256k1_ChaChaPoly_SHA256"
	noiseIntro  = "lightning"
	versionByte = 0
	actTwoSize  = 50
	macSize     = 16
	lengthSize  = 2
	keyUses     = 1000 // a key encrypts so many pieces, two for each message, and is then replaced
)

// handshake is the state of the three acts.
type handshake struct {
	hash, chainingKey []byte
}

func (h *handshake) mix(data []byte) {
	sum := sha256.Sum256(append(h.hash[:len(h.hash):len(h.hash)], data...))
	h.hash = sum[:]
}

// key derives the next chaining key, and the key of an act, from a shared secret.
func (h *handshake) key(secret []byte) cipher.AEAD {
	var key []byte
	h.chainingKey, key = twoKeys(h.chainingKey, secret)
	return aead(key)
}

// dialNoise performs the handshake on a connection. `ephemeral` is the key of this handshake alone.
func dialNoise(
	connection io.ReadWriter, own, ephemeral *secp256k1.PrivateKey, remote *secp256k1.PublicKey,
) (*encryptor, *decryptor, error) {
	name := sha256.Sum256([]byte(noiseName))
	h := &handshake{hash: name[:], chainingKey: name[:]}
	h.mix([]byte(noiseIntro))
	h.mix(remote.SerializeCompressed())

	// Act one: our ephemeral key, and that we know the peer's node id.
	public := ephemeral.PubKey().SerializeCompressed()
	h.mix(public)
	proof := h.key(ecdh(ephemeral, remote)).Seal(nil, nonce(0), nil, h.hash)
	h.mix(proof)
	if _, err := connection.Write(join([]byte{versionByte}, public, proof)); err != nil {
		return nil, nil, err
	}

	// Act two: the peer's ephemeral key, and that it owns its node id.
	act := make([]byte, actTwoSize)
	if _, err := io.ReadFull(connection, act); err != nil {
		return nil, nil, fmt.Errorf("the peer ended the handshake: %w", err)
	}
	theirs, err := secp256k1.ParsePubKey(act[1 : actTwoSize-macSize])
	if err != nil || act[0] != versionByte {
		return nil, nil, errors.New("act two of the handshake is malformed")
	}
	h.mix(act[1 : actTwoSize-macSize])
	second := h.key(ecdh(ephemeral, theirs))
	if _, err := second.Open(nil, nonce(0), act[actTwoSize-macSize:], h.hash); err != nil {
		return nil, nil, errors.New("the peer does not own its node id")
	}
	h.mix(act[actTwoSize-macSize:])

	// Act three: our node id, and that we own it.
	id := second.Seal(nil, nonce(1), own.PubKey().SerializeCompressed(), h.hash)
	h.mix(id)
	proof = h.key(ecdh(own, theirs)).Seal(nil, nonce(0), nil, h.hash)
	if _, err := connection.Write(join([]byte{versionByte}, id, proof)); err != nil {
		return nil, nil, err
	}
	sending, receiving := twoKeys(h.chainingKey, nil)
	return &encryptor{newRotating(h.chainingKey, sending)}, &decryptor{newRotating(h.chainingKey, receiving)}, nil
}

// rotating is a key that is replaced after keyUses uses.
type rotating struct {
	chainingKey, key []byte
	aead             cipher.AEAD
	nonce            [chacha20poly1305.NonceSize]byte
	uses             uint64
}

func newRotating(chainingKey, key []byte) *rotating {
	return &rotating{chainingKey: chainingKey, key: key, aead: aead(key)}
}

// next returns the nonce of the next use.
func (r *rotating) next() []byte {
	if r.uses == keyUses {
		r.chainingKey, r.key = twoKeys(r.chainingKey, r.key)
		r.aead, r.uses = aead(r.key), 0
	}
	binary.LittleEndian.PutUint64(r.nonce[4:], r.uses)
	r.uses++
	return r.nonce[:]
}

// encryptor is our side of the transport.
type encryptor struct{ *rotating }

// append adds an encrypted message to bytes that are to be sent.
func (e *encryptor) append(out, message []byte) []byte {
	var length [lengthSize]byte
	binary.BigEndian.PutUint16(length[:], uint16(len(message)))
	nonce := e.next()
	out = e.aead.Seal(out, nonce, length[:], nil)
	nonce = e.next()
	return e.aead.Seal(out, nonce, message, nil)
}

// decryptor is the peer's side of the transport.
type decryptor struct{ *rotating }

// read reads one message into a buffer that holds the largest, and returns it.
func (d *decryptor) read(from io.Reader, buffer []byte) ([]byte, error) {
	header := buffer[:lengthSize+macSize]
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	nonce := d.next()
	length, err := d.aead.Open(header[:0], nonce, header, nil)
	if err != nil {
		return nil, err
	}
	body := buffer[:int(binary.BigEndian.Uint16(length))+macSize]
	if _, err := io.ReadFull(from, body); err != nil {
		return nil, err
	}
	nonce = d.next()
	return d.aead.Open(body[:0], nonce, body, nil)
}

// ecdh returns the shared secret of BOLT 8: the hash of the compressed point.
func ecdh(own *secp256k1.PrivateKey, theirs *secp256k1.PublicKey) []byte {
	var point, result secp256k1.JacobianPoint
	theirs.AsJacobian(&point)
	secp256k1.ScalarMultNonConst(&own.Key, &point, &result)
	result.ToAffine()
	sum := sha256.Sum256(secp256k1.NewPublicKey(&result.X, &result.Y).SerializeCompressed())
	return sum[:]
}

// twoKeys is HKDF with 64 bytes of output, cut into halves.
func twoKeys(salt, secret []byte) (first, second []byte) {
	both, err := hkdf.Key(sha256.New, secret, salt, "", 2*chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // only for an output that is too long
	}
	return both[:chacha20poly1305.KeySize], both[chacha20poly1305.KeySize:]
}

func aead(key []byte) cipher.AEAD {
	made, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err) // only for a key of another size
	}
	return made
}

func nonce(number uint64) []byte {
	made := make([]byte, chacha20poly1305.NonceSize)
	binary.LittleEndian.PutUint64(made[4:], number)
	return made
}

func join(parts ...[]byte) []byte {
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}
