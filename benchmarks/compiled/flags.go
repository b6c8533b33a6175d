package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// messageType is the type of all messages: LSPS0's, which a node passes on.
const messageType = 37913

// Flags are the flags of a mode; each mode adds those that it needs.
type Flags struct {
	*flag.FlagSet
	size            *int
	warmUp, seconds *float64
	// Of the modes that call a gRPC server.
	address, contract, ca, cert, key, name *string
	// Of the modes that send.
	peers *string
}

// newFlags returns the flags that all modes have.
func newFlags(mode string) *Flags {
	set := flag.NewFlagSet(mode, flag.ExitOnError)
	return &Flags{
		FlagSet: set,
		size:    set.Int("size", 100, "bytes of a message, its type included"),
		warmUp:  set.Float64("warm-up", 0.3, "seconds before the measured time"),
		seconds: set.Float64("seconds", 1, "the measured time"),
	}
}

// addServer adds the flags of the modes that call a gRPC server.
func (f *Flags) addServer() {
	f.address = f.String("address", "127.0.0.1:9737", "the server, host:port")
	f.contract = f.String("contract", "native", "native (custommsg.v1) or cln (cln.Node)")
	f.ca = f.String("ca", "", "the CA of the server's certificate (PEM); without it there is no TLS")
	f.cert = f.String("cert", "", "the client's certificate (PEM), for mutual TLS")
	f.key = f.String("key", "", "its key (PEM)")
	f.name = f.String("name", "localhost", "the name that the server's certificate must have")
}

// addPeers adds the flag of the modes that send.
func (f *Flags) addPeers() {
	f.peers = f.String("peers", "", "the node ids that messages go to, in hex, with commas")
}

// timing returns how long to measure.
func (f *Flags) timing() Timing {
	return Timing{
		warmUp:  time.Duration(*f.warmUp * float64(time.Second)),
		seconds: time.Duration(*f.seconds * float64(time.Second)),
	}
}

// message returns the message that is sent again and again.
func (f *Flags) message() []byte {
	message := make([]byte, max(2, *f.size))
	for i := range message {
		message[i] = byte(i)
	}
	message[0], message[1] = messageType>>8, messageType&0xff
	return message
}

// peerIDs returns the node ids that messages go to.
func (f *Flags) peerIDs() ([][]byte, error) {
	var ids [][]byte
	for text := range strings.SplitSeq(*f.peers, ",") {
		id, err := hex.DecodeString(text)
		if err != nil || len(id) != 33 {
			return nil, fmt.Errorf("%q is not a node id; write 66 hex digits for each", text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// dial opens a connection of its own to the server.
func (f *Flags) dial() (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if *f.ca != "" {
		config, err := f.tls()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	return grpc.NewClient("passthrough:///"+*f.address, grpc.WithTransportCredentials(transport))
}

func (f *Flags) tls() (*tls.Config, error) {
	config := &tls.Config{ServerName: *f.name, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	pem, err := os.ReadFile(*f.ca)
	if err != nil {
		return nil, err
	}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("the file of --ca holds no certificate")
	}
	if *f.cert != "" {
		pair, err := tls.LoadX509KeyPair(*f.cert, *f.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
