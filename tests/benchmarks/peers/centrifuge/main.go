// The library under Centrifugo, serving one channel: obeys "SECONDS HZ BYTES" lines like the C floor.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

func used() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		panic(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: ""},
			Subscriptions: map[string]centrifuge.SubscribeOptions{"board": {}},
		}, nil
	})
	if err := node.Run(); err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	http.Handle("/ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin: func(*http.Request) bool { return true },
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: time.Hour, PongTimeout: time.Minute},
	}))
	go func() { _ = http.Serve(listener, nil) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var seconds float64
		var hz, size int
		if _, err := fmt.Sscan(lines.Text(), &seconds, &hz, &size); err != nil {
			return
		}
		payload := []byte(`"` + strings.Repeat("x", size) + `"`)
		before, due := used(), time.Now()
		count := int(seconds * float64(hz))
		for i := 0; i < count; i++ {
			due = due.Add(time.Second / time.Duration(hz))
			time.Sleep(time.Until(due))
			if _, err := node.Publish("board", payload); err != nil {
				panic(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		fmt.Println(count*node.Hub().NumClients(), used()-before)
	}
}
