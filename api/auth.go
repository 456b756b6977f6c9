package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cortex"
)

// guard decides who may. It stands before the routes, so that no route can forget it. What it keeps out: web pages that
// the operator's browser shows (Host, Origin, Sec-Fetch-Site; DNS rebinding makes a foreign page's requests look like
// those of a page of ours but for the Host), other users of this host (the peer's uid), and other hosts (the token).
// Processes of the same user are no boundary: they can read the token.
type guard struct {
	token        [sha256.Size]byte // a hash, so that comparing tells not even the length
	requireToken bool
	allowed      []string // of api.allowed_hosts, in lower case
	log          *slog.Logger
}

// newGuard uses Token, Config.API and Log of o. A guard never changes: SetConfig makes another.
func newGuard(o Options) *guard {
	g := &guard{token: sha256.Sum256([]byte(o.Token)), requireToken: o.Config.API.RequireToken, log: o.Log}
	for _, host := range o.Config.API.AllowedHosts {
		g.allowed = append(g.allowed, strings.ToLower(host))
	}
	return g
}

// wrap lets only requests that may through to next. It needs connContext in the http.Server.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.admit(r); err != nil {
			writeProblem(w, r, err, g.log)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admit is nil, or says why r is refused.
func (g *guard) admit(r *http.Request) error {
	p := peerOf(r)
	switch {
	case p == nil:
		return peerRefused(nil)
	case p.socket:
		return g.checkUser(p)
	}
	if err := g.checkHost(r, p); err != nil {
		return err
	}
	if err := g.checkOrigin(r, p); err != nil {
		return err
	}
	switch {
	case p.onThisHost() && isScrape(r): // every local user's
	case !p.onThisHost() && g.requireToken: // decided by the token
	default:
		if err := g.checkUser(p); err != nil {
			return err
		}
	}
	if g.requireToken {
		return g.checkToken(r)
	}
	return nil
}

// isScrape reports whether r is what Prometheus sends.
func isScrape(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.EscapedPath() == "/metrics"
}

// checkUser refuses peers that aren't the daemon's own user or root, and those that can't be found out.
func (g *guard) checkUser(p *peer) error {
	if !p.onThisHost() {
		return peerRefused(fmt.Errorf("the peer %s is not on this host", p.remote))
	}
	uid, err := p.uid()
	if err != nil {
		return peerRefused(err)
	}
	if !sameUser(uid) {
		return peerRefused(fmt.Errorf("the peer is uid %d", uid))
	}
	return nil
}

func peerRefused(cause error) error {
	return &cortex.Error{
		Reason:  cortex.ReasonPeerRefused,
		Message: "Only the user that cortex runs as, and root, may ask this",
		Hint:    "run the command as that user (sudo -u USER …) and keep the connection open until the answer; GET /metrics answers every local user",
		Err:     cause,
	}
}

// checkHost refuses requests that were sent under another name. An absolute request line (RFC 9112, 3.2.2) is refused
// whatever it says: net/http then drops the Host header, so that a foreign one could not be seen.
func (g *guard) checkHost(r *http.Request, p *peer) error {
	if (strings.HasPrefix(r.RequestURI, "/") || r.RequestURI == "*") && g.isOurs(strings.ToLower(r.Host), p.local) {
		return nil
	}
	return &cortex.Error{
		Reason:  cortex.ReasonForeignHost,
		Message: "The request's Host is not a name of this daemon",
		Hint: fmt.Sprintf("use http://127.0.0.1:%d, or add the name to api.allowed_hosts in the configuration (for a tunnel or a proxy)",
			p.local.Port()),
	}
}

// isOurs reports whether hostport, in lower case, is how this daemon is called: a loopback name or the very address that
// the connection came to, with its port, or one that the configuration adds.
func (g *guard) isOurs(hostport string, local netip.AddrPort) bool {
	return isOwnName(hostport, local) || g.isAllowed(hostport, local)
}

func isOwnName(hostport string, local netip.AddrPort) bool {
	own := local.Addr().String()
	if local.Addr().Is6() {
		own = "[" + own + "]"
	}
	port := ":" + strconv.Itoa(int(local.Port()))
	for _, name := range []string{"127.0.0.1", "localhost", "[::1]", own} {
		if hostport == name+port || hostport == name && local.Port() == 80 { // clients leave 80 out
			return true
		}
	}
	return false
}

// isAllowed takes an entry of api.allowed_hosts without a port with the daemon's own port and with none.
func (g *guard) isAllowed(hostport string, local netip.AddrPort) bool {
	withoutOwn := strings.TrimSuffix(hostport, ":"+strconv.Itoa(int(local.Port())))
	return slices.Contains(g.allowed, hostport) || slices.Contains(g.allowed, withoutOwn)
}

// checkOrigin refuses what a browser sends for a page that isn't ours. Unlike http.CrossOriginProtection it does so for
// GET, too, since answers tell beads, paths and output, and an upgrade to a websocket is a GET.
func (g *guard) checkOrigin(r *http.Request, p *peer) error {
	for _, origin := range r.Header.Values("Origin") {
		if !g.isOurOrigin(strings.ToLower(origin), p.local) {
			return foreignOrigin("The request comes from a web page of another origin")
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" { // none: typed by the user
			return foreignOrigin("The request comes from a web page of another site")
		}
	}
	return nil
}

// isOurOrigin takes http://NAME, and for names that the configuration adds https, too: a proxy may end TLS.
func (g *guard) isOurOrigin(origin string, local netip.AddrPort) bool {
	if host, ok := strings.CutPrefix(origin, "http://"); ok {
		return g.isOurs(host, local)
	}
	host, ok := strings.CutPrefix(origin, "https://")
	return ok && g.isAllowed(host, local)
}

func foreignOrigin(message string) error {
	return &cortex.Error{
		Reason:  cortex.ReasonForeignOrigin,
		Message: message,
		Hint:    "open the daemon's own address, or use curl or the cortex command, which send no Origin",
	}
}

// mayStart is nil where r may start a command or type into one: over the socket, which only the same user can open, or
// with the token. Without it any web page that got past the rest could run commands as the operator.
func (g *guard) mayStart(r *http.Request) error {
	if p := peerOf(r); p != nil && p.socket {
		return nil
	}
	return g.checkToken(r)
}

// checkToken wants one header "Authorization: Bearer TOKEN" (RFC 6750, 2.1) and never looks for the token elsewhere: a
// URL ends up in logs and histories.
func (g *guard) checkToken(r *http.Request) error {
	const hint = `send the header "Authorization: Bearer TOKEN" with what ~/.cortex/token holds, ` +
		"or come over the socket: cortex submit …, curl --unix-socket ~/.cortex/cortex.sock …"
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return &cortex.Error{Reason: cortex.ReasonTokenRequired, Message: "This needs the token", Hint: hint}
	}
	scheme, given, _ := strings.Cut(headers[0], " ")
	given = strings.TrimLeft(given, " ")
	sum := sha256.Sum256([]byte(given))
	equal := subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || given == "" || !equal {
		return &cortex.Error{Reason: cortex.ReasonTokenInvalid, Message: "The token is not the one of this daemon", Hint: hint}
	}
	return nil
}
