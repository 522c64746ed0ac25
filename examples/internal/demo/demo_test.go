package demo

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// TestSlowClients: the server parts with a client that does not go on, wherever that
// is. In the bubble a server that waits forever is a deadlock, which fails.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
	for _, test := range []struct {
		name  string
		sent  string
		reads bool // the answer
	}{
		{"says nothing", "", true},
		{"stops in the header", request[:20], true},
		{"stops in the body", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\nabc", true},
		{"has no more requests", request, true},
		{"does not read the answer", request, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, conn := net.Pipe()
				defer client.Close()
				closed := make(chan struct{})
				server := newServer(http.HandlerFunc(ping))
				server.ConnState = func(_ net.Conn, state http.ConnState) {
					if state == http.StateClosed {
						close(closed)
					}
				}
				listener := &pipeListener{conns: make(chan net.Conn, 1)}
				listener.conns <- conn
				go func() { _ = server.Serve(listener) }()
				if _, err := io.WriteString(client, test.sent); err != nil {
					t.Fatal(err)
				}
				if test.reads {
					if _, err := io.Copy(io.Discard, client); err != nil {
						t.Fatal(err)
					}
				}
				<-closed
				if err := server.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A pipeListener accepts what is in conns.
type pipeListener struct{ conns chan net.Conn }

func (l *pipeListener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (l *pipeListener) Close() error { close(l.conns); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestHelloAddress: what is printed can be pasted, whatever -addr is.
func TestHelloAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, ip, base, ping string
	}{
		{"loopback", "127.0.0.1", "http://127.0.0.1:8080", " http://127.0.0.1:8080/v1/ping\n"},
		{"every address", "::", "http://localhost:8080", " http://localhost:8080/v1/ping\n"},
		{"every address of IPv4", "0.0.0.0", "http://localhost:8080", " http://localhost:8080/v1/ping\n"},
		{"IPv6", "::1", "http://[::1]:8080", " 'http://[::1]:8080/v1/ping'\n"}, // zsh looks for files
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mgr, err := keys.New(memstore.New(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer mgr.Close()
			e := &Example{name: "test", listener: addrListener{addr: &net.TCPAddr{IP: net.ParseIP(test.ip), Port: 8080}}}
			var out strings.Builder
			if err := e.hello(t.Context(), &out, mgr); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"keystile on " + test.base + "\n", test.ping} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in\n%s", want, &out)
				}
			}
		})
	}
}

// An addrListener has an address.
type addrListener struct {
	net.Listener
	addr net.Addr
}

func (l addrListener) Addr() net.Addr { return l.addr }
