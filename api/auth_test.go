package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cortex"
)

const testToken = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// testGuard is a guard as a configuration makes it.
func testGuard(requireToken bool, allowed ...string) *guard {
	o := Options{Token: testToken, Log: slog.New(slog.DiscardHandler)}
	o.Config.API.RequireToken = requireToken
	o.Config.API.AllowedHosts = allowed
	return newGuard(o)
}

// serveGuarded answers on l with what is behind the guard: who asks, by which way, and whether that may start commands.
func serveGuarded(t *testing.T, l net.Listener, g *guard) {
	t.Helper()
	server := &http.Server{
		DisableGeneralOptionsHandler: true, // as in Serve
		ConnContext:                  connContext,
		Handler: g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			by, via := actor(r)
			may := "may start"
			if err := g.mayStart(r); err != nil {
				may = string(problemOf(err).Reason)
			}
			fmt.Fprintf(w, "%s %s %s", by, via, may)
		})),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// sendRaw writes a request by hand, and returns the status with what came of it: the body of 200, else the reason.
func sendRaw(t *testing.T, l net.Listener, request string) string {
	t.Helper()
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(rawPatience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return answerOf(t, conn)
}

func answerOf(t *testing.T, answer io.Reader) string {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(answer), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	}
	var problem struct {
		Error, Reason, Hint string
		Code                int
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if problem.Code != res.StatusCode || problem.Error == "" || problem.Hint == "" {
		t.Errorf("answer not in the contract's shape: %s", body)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, problem.Reason)
}

func userName(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return me.Username
}

// withPort puts the port of l where a request says PORT.
func withPort(l net.Listener, request string) string {
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	return strings.ReplaceAll(request, "PORT", port)
}

const (
	foreignHost  = "403 foreign_host"
	originDenied = "403 foreign_origin"
	peerDenied   = "403 peer_refused"
)

func TestHostAndOrigin(t *testing.T) {
	t.Parallel()
	l := listenOn(t, "tcp4", "127.0.0.1:0")
	serveGuarded(t, l, testGuard(false, "localhost:9000", "Cortex.Example.com"))
	good := "200 " + userName(t) + " http token_required"
	get := func(header string) string {
		return "GET /status HTTP/1.1\r\n" + header + "\r\nConnection: close\r\n\r\n"
	}
	own := func(header string) string { return get("Host: 127.0.0.1:PORT\r\n" + header) }
	for _, c := range []struct{ name, request, want string }{
		{"127.0.0.1", get("Host: 127.0.0.1:PORT"), good},
		{"localhost", get("Host: localhost:PORT"), good},
		{"IPv6 loopback", get("Host: [::1]:PORT"), good},
		{"upper case", get("Host: LOCALHOST:PORT"), good},
		{"allowed", get("Host: localhost:9000"), good},
		{"allowed, other case", get("Host: cortex.EXAMPLE.com"), good},
		{"allowed without port, own port", get("Host: cortex.example.com:PORT"), good},
		{"HTTP/1.0", "GET /status HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\n\r\n", good},

		{"foreign", get("Host: evil.example:PORT"), foreignHost},
		{"rebinding", get("Host: evil.example:PORT\r\nOrigin: http://evil.example:PORT"), foreignHost},
		{"below localhost", get("Host: evil.localhost:PORT"), foreignHost},
		{"below allowed", get("Host: x.cortex.example.com"), foreignHost},
		{"other port", get("Host: 127.0.0.1:1"), foreignHost},
		{"allowed, other port", get("Host: cortex.example.com:1"), foreignHost},
		{"no port", get("Host: 127.0.0.1"), foreignHost},
		{"empty port", get("Host: 127.0.0.1:"), foreignHost},
		{"empty host", get("Host: :PORT"), foreignHost},
		{"empty", get("Host: "), foreignHost},
		{"trailing dot", get("Host: 127.0.0.1."), foreignHost},
		{"trailing dot, port", get("Host: localhost.:PORT"), foreignHost},
		{"other loopback address", get("Host: 127.0.0.2:PORT"), foreignHost},
		{"other spelling", get("Host: 127.1:PORT"), foreignHost},
		{"other spelling of IPv6", get("Host: [0:0:0:0:0:0:0:1]:PORT"), foreignHost},
		{"any address", get("Host: 0.0.0.0:PORT"), foreignHost},
		{"user in front", get("Host: 127.0.0.1:PORT@evil.example"), "400 400 Bad Request: malformed Host header"},
		{"none, HTTP/1.0", "GET /status HTTP/1.0\r\n\r\n", foreignHost},
		{"none, HTTP/1.1", "GET /status HTTP/1.1\r\nConnection: close\r\n\r\n", "400 400 Bad Request: missing required Host header"},
		{"two", get("Host: 127.0.0.1:PORT\r\nHost: evil.example"), "400 400 Bad Request"},
		{"absolute, foreign", "GET http://evil.example/status HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: close\r\n\r\n", foreignHost},
		{"absolute, ours, Host foreign",
			"GET http://127.0.0.1:PORT/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", foreignHost},
		{"CONNECT", "CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: close\r\n\r\n", foreignHost},
		{"metrics, foreign", "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", foreignHost},

		{"own origin", own("Origin: http://127.0.0.1:PORT"), good},
		{"own origin, other name", own("Origin: http://localhost:PORT"), good},
		{"allowed origin", own("Origin: http://localhost:9000"), good},
		{"allowed origin, TLS", own("Origin: https://cortex.example.com"), good},
		{"foreign origin", own("Origin: http://evil.example"), originDenied},
		{"foreign origin, own port", own("Origin: http://evil.example:PORT"), originDenied},
		{"origin on another port", own("Origin: http://127.0.0.1:1"), originDenied},
		{"origin, TLS", own("Origin: https://127.0.0.1:PORT"), originDenied},
		{"origin of a file", own("Origin: file://"), originDenied},
		{"origin null", own("Origin: null"), originDenied},
		{"origin empty", own("Origin: "), originDenied},
		{"two origins", own("Origin: http://127.0.0.1:PORT\r\nOrigin: http://evil.example"), originDenied},
		{"metrics, foreign origin",
			"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n", originDenied},

		{"same-origin", own("Sec-Fetch-Site: same-origin"), good},
		{"typed by the user", own("Sec-Fetch-Site: none"), good},
		{"cross-site", own("Sec-Fetch-Site: cross-site"), originDenied},
		{"same-site", own("Sec-Fetch-Site: same-site"), originDenied},
		{"cross-site in capitals", own("Sec-Fetch-Site: CROSS-SITE"), originDenied},
		{"cross-site as the second", own("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site"), originDenied},
		{"cross-site navigation", own("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document"), originDenied},
		{"websocket of another page", own("Upgrade: websocket\r\nOrigin: http://evil.example"), originDenied},

		{"the token does not help", own("Authorization: Bearer " + testToken + "\r\nOrigin: http://evil.example"), originDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := sendRaw(t, l, withPort(l, c.request)); got != c.want && !strings.HasPrefix(got, c.want+":") {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestNamesOfTheAddressListenedOn(t *testing.T) {
	t.Parallel()
	g := testGuard(false, "proxy.example", "[2001:db8::9]:80")
	for _, c := range []struct {
		local, host string
		want        bool
	}{
		{"127.0.0.1:80", "127.0.0.1", true},
		{"127.0.0.1:80", "localhost:80", true},
		{"127.0.0.1:8900", "localhost:80", false},
		{"127.0.0.5:8900", "127.0.0.5:8900", true},
		{"192.0.2.1:8900", "192.0.2.1:8900", true},
		{"192.0.2.1:8900", "192.0.2.2:8900", false},
		{"[2001:db8::1]:8900", "[2001:db8::1]:8900", true},
		{"[2001:db8::1]:8900", "2001:db8::1:8900", false},
		{"192.0.2.1:8900", "[2001:db8::9]:80", true},
		{"192.0.2.1:8900", "proxy.example", true},
		{"192.0.2.1:8900", "proxy.example:8900", true},
		{"192.0.2.1:8900", "proxy.example:8901", false},
		{"192.0.2.1:8900", "", false},
		{"192.0.2.1:8900", ":8900", false},
	} {
		if got := g.isOurs(c.host, netip.MustParseAddrPort(c.local)); got != c.want {
			t.Errorf("at %s, Host %q: %v, want %v", c.local, c.host, got, c.want)
		}
	}
}

// TestStranger makes requests as another user of this host. Where the test may not change its user, they are the own
// user's, and are let in.
func TestStranger(t *testing.T) {
	t.Parallel()
	foreign := stranger() != uint32(os.Geteuid())
	l := listenOn(t, "tcp4", "127.0.0.1:0")
	serveGuarded(t, l, testGuard(false))
	locked := listenOn(t, "tcp4", "127.0.0.1:0")
	serveGuarded(t, locked, testGuard(true))
	auth := "Authorization: Bearer " + testToken + "\r\n"
	for _, c := range []struct {
		l                           net.Listener
		line, header, stranger, own string
	}{
		{l, "GET /metrics", "", "200", "200"},
		{l, "HEAD /metrics", "", "200", "200"},
		{l, "GET /metrics?x=1", "", "200", "200"},
		{l, "POST /metrics", "", peerDenied, "200"},
		{l, "GET /metrics/", "", peerDenied, "200"},
		{l, "GET //metrics", "", peerDenied, "200"},
		{l, "GET /%6detrics", "", peerDenied, "200"},
		{l, "GET /status", "", peerDenied, "200"},
		{l, "OPTIONS *", "", peerDenied, "200"},
		{l, "GET /dispatches", auth, peerDenied, "200"},
		{l, "POST /scheduler/pause", "", peerDenied, "200"},
		{l, "POST /dispatches", auth, peerDenied, "200"},
		{locked, "GET /metrics", "", "401 token_required", "401 token_required"},
		{locked, "GET /metrics", auth, "200", "200"},
		{locked, "GET /status", auth, peerDenied, "200"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			request := withPort(c.l, c.line+" HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n"+c.header+"Connection: close\r\n\r\n")
			cmd := asStranger(t, "tcp4", c.l.Addr().String(), request)
			answer, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			want := c.own
			if foreign {
				want = c.stranger
			}
			if strings.HasPrefix(c.line, "HEAD") {
				if !strings.HasPrefix(string(answer), "HTTP/1.1 "+want) {
					t.Errorf("got %s, want %s", answer, want)
				}
				return
			}
			if got := answerOf(t, strings.NewReader(string(answer))); !strings.HasPrefix(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestSocket: over the socket only the user counts, and neither Host nor Origin nor token are looked at.
func TestSocket(t *testing.T) {
	t.Parallel()
	// Open to all, to see that it is not the file's mode alone that keeps others out.
	dir, err := os.MkdirTemp("", "cortex-api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	for _, requireToken := range []bool{false, true} {
		l := listenOn(t, "unix", fmt.Sprint(path, requireToken))
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(l.Addr().String(), 0o666)); err != nil {
			t.Fatal(err)
		}
		serveGuarded(t, l, testGuard(requireToken))
		good := "200 " + userName(t) + " socket may start"
		for _, header := range []string{"Host: cortex", "Host: evil.example\r\nOrigin: null", "Host: x\r\nAuthorization: Bearer wrong"} {
			if got := sendRaw(t, l, "POST /dispatches HTTP/1.1\r\n"+header+"\r\nConnection: close\r\n\r\n"); got != good {
				t.Errorf("%s: got %s, want %s", header, got, good)
			}
		}
		for _, line := range []string{"GET /status", "POST /dispatches", "GET /metrics"} {
			answer, err := asStranger(t, "unix", l.Addr().String(), line+" HTTP/1.0\r\n\r\n").Output()
			if err != nil {
				t.Fatal(err)
			}
			want := good
			if stranger() != uint32(os.Geteuid()) {
				want = peerDenied
			}
			if got := answerOf(t, strings.NewReader(string(answer))); got != want {
				t.Errorf("%s of another user: got %s, want %s", line, got, want)
			}
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	open := listenOn(t, "tcp4", "127.0.0.1:0")
	serveGuarded(t, open, testGuard(false))
	locked := listenOn(t, "tcp4", "127.0.0.1:0")
	serveGuarded(t, locked, testGuard(true))
	for _, c := range []struct{ name, header, want string }{
		{"right", "Authorization: Bearer " + testToken + "\r\n", "may start"},
		{"scheme in lower case", "Authorization: bearer  " + testToken + "\r\n", "may start"},
		{"none", "", "token_required"},
		{"only in the body's place", "X-Token: " + testToken + "\r\n", "token_required"},
		{"wrong", "Authorization: Bearer " + strings.Repeat("A", 32) + "\r\n", "token_invalid"},
		{"cut off", "Authorization: Bearer " + testToken[:31] + "\r\n", "token_invalid"},
		{"other case", "Authorization: Bearer " + strings.ToLower(testToken) + "\r\n", "token_invalid"},
		{"empty", "Authorization: Bearer \r\n", "token_invalid"},
		{"nothing", "Authorization:\r\n", "token_invalid"},
		{"no scheme", "Authorization: " + testToken + "\r\n", "token_invalid"},
		{"other scheme", "Authorization: Basic " + testToken + "\r\n", "token_invalid"},
		{"twice", "Authorization: Bearer " + testToken + "\r\nAuthorization: Bearer " + testToken + "\r\n", "token_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			request := "POST /dispatches?token=" + testToken + " HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + c.header + "Connection: close\r\n\r\n"
			if got, want := sendRaw(t, open, withPort(open, request)), "200 "+userName(t)+" http "+c.want; got != want {
				t.Errorf("start: got %s, want %s", got, want)
			}
			want := "401 " + c.want
			if c.want == "may start" {
				want = "200 " + userName(t) + " http may start"
			}
			for _, line := range []string{"GET /status", "GET /metrics"} {
				request := line + " HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + c.header + "Connection: close\r\n\r\n"
				if got := sendRaw(t, locked, withPort(locked, request)); got != want {
					t.Errorf("%s with require_token: got %s, want %s", line, got, want)
				}
			}
		})
	}
}

func TestNoTokenLetsNobodyStart(t *testing.T) {
	t.Parallel()
	g := newGuard(Options{Log: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequest(http.MethodPost, "/dispatches", nil)
	for _, header := range []string{"", "Bearer", "Bearer "} {
		r.Header.Set("Authorization", header)
		if err := g.mayStart(r); problemOf(err).Reason != cortex.ReasonTokenInvalid {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// TestOtherHosts: who comes from another host has no uid, so that only the token can let him in.
func TestOtherHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		requireToken bool
		path, header string
		want         cortex.Reason
	}{
		{false, "/status", "", cortex.ReasonPeerRefused},
		{false, "/metrics", "", cortex.ReasonPeerRefused},
		{false, "/metrics", "Bearer " + testToken, cortex.ReasonPeerRefused},
		{true, "/status", "", cortex.ReasonTokenRequired},
		{true, "/metrics", "", cortex.ReasonTokenRequired},
		{true, "/status", "Bearer x", cortex.ReasonTokenInvalid},
		{true, "/status", "Bearer " + testToken, ""},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Host = "192.0.2.1:8900"
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		r = r.WithContext(connContext(r.Context(), addressed{
			local: netip.MustParseAddrPort("192.0.2.1:8900"), remote: netip.MustParseAddrPort("192.0.2.7:5"),
		}))
		var reason cortex.Reason
		if err := testGuard(c.requireToken).admit(r); err != nil {
			reason = problemOf(err).Reason
		}
		if reason != c.want {
			t.Errorf("%s with %q, require_token %v: %q, want %q", c.path, c.header, c.requireToken, reason, c.want)
		}
	}
}

// addressed is a connection of which only the ends matter.
type addressed struct {
	net.Conn
	local, remote netip.AddrPort
}

func (a addressed) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(a.local) }
func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.remote) }

// TestClientThatDoesNotWait sends a request and closes its socket before the guard looks: whose it was can't be told any
// more, and it must not pass as root's.
func TestClientThatDoesNotWait(t *testing.T) {
	t.Parallel()
	l := listenOn(t, "tcp4", "127.0.0.1:0")
	closed, result := make(chan struct{}), make(chan string, 1)
	g := testGuard(false)
	server := &http.Server{
		ConnContext: connContext,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-closed
			w := httptest.NewRecorder()
			g.wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
			result <- answerOf(t, strings.NewReader(fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Type: application/json\r\n\r\n%s", w.Code, w.Body)))
		}),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, withPort(l, "POST /scheduler/pause HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	close(closed)
	select {
	case got := <-result:
		if got != peerDenied {
			t.Errorf("got %s, want %s", got, peerDenied)
		}
	case <-time.After(rawPatience):
		t.Error("the request never came")
	}
	if err := errors.Join(server.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestRequestsOfUnknownConnectionsAreRefused(t *testing.T) {
	t.Parallel()
	err := testGuard(false).admit(httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if err == nil || problemOf(err).Reason != cortex.ReasonPeerRefused {
		t.Errorf("got %v", err)
	}
}
