// lndclient, an LND client for Go: `lndclient HOST:PORT CERTIFICATE MACAROON_FILE`. driver.py says which lines go in
// and out.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lightninglabs/lndclient"
	"github.com/lightningnetwork/lnd/lnrpc/verrpc"
	"github.com/lightningnetwork/lnd/routing/route"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type arguments struct {
	Peer    string `json:"peer"`
	Message string `json:"message"`
	Host    string `json:"host"`
}

type object map[string]any

var writing sync.Mutex

func say(what object) {
	writing.Lock()
	defer writing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		panic(err)
	}
}

func outcome(text string, err error) object {
	if err == nil {
		return object{"code": "OK", "text": text}
	}
	said, _ := status.FromError(err)
	details, _ := proto.Marshal(said.Proto())
	return object{"code": name(said.Code()), "text": said.Message(), "details": hex.EncodeToString(details)}
}

// name returns a code as in the documentation: NOT_FOUND for NotFound.
func name(code codes.Code) string {
	var words strings.Builder
	last := 'A'
	for _, letter := range code.String() {
		if letter >= 'A' && letter <= 'Z' && last >= 'a' {
			words.WriteByte('_')
		}
		words.WriteRune(letter)
		last = letter
	}
	return strings.ToUpper(words.String())
}

func call(lnd *lndclient.GrpcLndServices, method string, given arguments) (string, error) {
	ctx := context.Background()
	var peer route.Vertex
	raw, _ := hex.DecodeString(given.Peer)
	copy(peer[:], raw)
	switch method {
	case "send":
		message, _ := hex.DecodeString(given.Message)
		return "", lnd.Client.SendCustomMessage(ctx, lndclient.CustomMessage{
			Peer: peer, MsgType: uint32(binary.BigEndian.Uint16(message)), Data: message[2:],
		})
	case "subscribe":
		messages, _, err := lnd.Client.SubscribeCustomMessages(ctx)
		if err != nil {
			return "", err
		}
		go func() {
			for one := range messages {
				message := fmt.Sprintf("%04x%x", one.MsgType, one.Data)
				say(object{"event": object{"peer": one.Peer.String(), "message": message}})
			}
		}()
		return "", nil
	case "info":
		info, err := lnd.Client.GetInfo(ctx)
		if err != nil {
			return "", err
		}
		peers, err := lnd.Client.ListPeers(ctx)
		return fmt.Sprintf("%s %x %d", info.Alias, info.IdentityPubkey, len(peers)), err
	case "peers":
		peers, err := lnd.Client.ListPeers(ctx)
		var ids []string
		for _, one := range peers {
			ids = append(ids, one.Pubkey.String())
		}
		return strings.Join(ids, " "), err
	case "connect":
		return "", lnd.Client.Connect(ctx, peer, given.Host, false)
	case "node":
		node, err := lnd.Client.GetNodeInfo(ctx, peer, false)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s", node.Alias, node.Addresses[0]), nil
	case "version":
		version, err := lnd.Versioner.GetVersion(ctx)
		return version.GetVersion(), err
	case "state":
		state, err := lnd.State.GetState(ctx)
		return fmt.Sprint(state), err
	case "channels":
		_, err := lnd.Client.ListChannels(ctx, false, false)
		return "", err
	}
	panic(method)
}

func main() {
	lnd, err := lndclient.NewLndServices(&lndclient.LndServicesConfig{
		LndAddress:         os.Args[1],
		Network:            lndclient.NetworkRegtest,
		TLSPath:            os.Args[2],
		CustomMacaroonPath: os.Args[3],
		// By default it requires services that are not for messages.
		CheckVersion:          &verrpc.Version{AppMinor: 18},
		BlockUntilUnlocked:    true,
		BlockUntilChainSynced: true,
		CallerCtx:             context.Background(),
		RPCTimeout:            20 * time.Second,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var asked struct {
			Call      string    `json:"call"`
			Arguments arguments `json:"arguments"`
		}
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		say(object{"outcome": outcome(call(lnd, asked.Call, asked.Arguments))})
	}
}
