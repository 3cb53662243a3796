// A WebSocket server that sends back what it gets, on a library that passes Autobahn's cases. Prints where it listens.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/lxzan/gws"
)

type echo struct{ gws.BuiltinEventHandler }

// An error is a peer that went away.
func (echo) OnPing(socket *gws.Conn, payload []byte) { _ = socket.WritePong(payload) }

func (echo) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	_ = socket.WriteMessage(message.Opcode, message.Bytes())
}

func main() {
	const largest = 64 << 20
	upgrader := gws.NewUpgrader(&echo{}, &gws.ServerOption{
		CheckUtf8Enabled:    true,
		ReadMaxPayloadSize:  largest,
		WriteMaxPayloadSize: largest,
		PermessageDeflate:   gws.PermessageDeflate{Enabled: true, ServerContextTakeover: true, ClientContextTakeover: true},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if socket, err := upgrader.Upgrade(writer, request); err == nil {
			go socket.ReadLoop()
		}
	})))
}
