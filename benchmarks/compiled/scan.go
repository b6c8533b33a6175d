package main

import (
	"errors"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// scanner is a gRPC codec that hands over the payloads in a response where they lie, and makes no objects: the
// machine that the client shares with the server has better use for its time. It reads both contracts.
type scanner struct {
	scan func(response []byte, take func(payload []byte)) error
}

// arrivals takes the payloads of one response.
type arrivals struct{ take func(payload []byte) }

var errMalformed = errors.New("a response is malformed")

// Field numbers of the two contracts.
const (
	responseEvents     = 1 // custommsg.v1.SubscribeCustomMsgsResponse
	eventMessage       = 6 // custommsg.v1.Event
	typedPayload       = 2 // custommsg.v1.TypedMsg
	notificationWhole  = 2 // cln.CustomMsgNotification: the type, then the payload
	bytesOfMessageType = 2
)

// Marshal writes a request.
func (scanner) Marshal(value any) (mem.BufferSlice, error) {
	data, err := proto.Marshal(value.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

// Unmarshal reads a response.
func (s scanner) Unmarshal(data mem.BufferSlice, value any) error {
	if len(data) == 1 {
		return s.scan(data[0].ReadOnlyData(), value.(*arrivals).take)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	return s.scan(whole.ReadOnlyData(), value.(*arrivals).take)
}

// Name is the name of the encoding.
func (scanner) Name() string { return "proto" }

func scanNative(response []byte, take func(payload []byte)) error {
	return fields(response, responseEvents, func(event []byte) error {
		return fields(event, eventMessage, func(message []byte) error {
			return fields(message, typedPayload, func(payload []byte) error {
				take(payload)
				return nil
			})
		})
	})
}

func scanCln(response []byte, take func(payload []byte)) error {
	return fields(response, notificationWhole, func(message []byte) error {
		if len(message) < bytesOfMessageType {
			return errMalformed
		}
		take(message[bytesOfMessageType:])
		return nil
	})
}

// fields hands over each field of that number, whose values are bytes.
func fields(data []byte, wanted protowire.Number, take func(value []byte) error) error {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return errMalformed
		}
		data = data[size:]
		if number == wanted && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(data)
			if size < 0 {
				return errMalformed
			}
			if err := take(value); err != nil {
				return err
			}
			data = data[size:]
			continue
		}
		if size = protowire.ConsumeFieldValue(number, kind, data); size < 0 {
			return errMalformed
		}
		data = data[size:]
	}
	return nil
}
