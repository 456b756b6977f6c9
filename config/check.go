package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxSocketPath is what fits into sockaddr_un.sun_path beside its closing NUL (unix(7)).
const maxSocketPath = 107

// conflict finds a setting that another one forbids. It returns the key to blame and why, or an empty key.
func (c Config) conflict() (path, problem string) {
	if !c.API.RequireToken && !isLoopback(c.API.Listen) {
		return "api.listen", fmt.Sprintf("%s is not a loopback address: other hosts could reach it, "+
			"so that it needs api.require_token = true", c.API.Listen)
	}
	return "", ""
}

// isLoopback reports whether only this host reaches listen, which isListen has passed. A name that would have to be
// resolved counts as foreign, except localhost (RFC 6761, 6.3).
func isLoopback(listen string) bool {
	host, _, _ := splitHostPort(listen)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// splitHostPort cuts "host", "host:port", "[v6]" and "[v6]:port"; port is empty where there is none. Unlike
// net.SplitHostPort it needs no port, and refuses what stands between the bracket and the colon.
func splitHostPort(s string) (host, port string, ok bool) {
	if rest, v6 := strings.CutPrefix(s, "["); v6 {
		host, rest, ok = strings.Cut(rest, "]")
		if addr, err := netip.ParseAddr(host); !ok || err != nil || !addr.Is6() {
			return "", "", false
		}
		if rest == "" {
			return host, "", true
		}
		port, ok = strings.CutPrefix(rest, ":")
		return host, port, ok && port != ""
	}
	host, port, hasPort := strings.Cut(s, ":")
	return host, port, !hasPort || port != ""
}

// hostName is a name as DNS and /etc/hosts have them, or an IPv4 address; without the root's dot at the end, which a
// Host header with the same name would not carry.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

func isHostName(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }

// isPort accepts decimal digits only: no sign, no service name.
func isPort(s string, lowest uint64) bool {
	port, err := strconv.ParseUint(s, 10, 16)
	return err == nil && port >= lowest
}

// isListen accepts host:port. An empty host is every address; port 0 lets the kernel choose.
func isListen(v any) bool {
	s := v.(string)
	host, port, ok := splitHostPort(s)
	if !ok || !isPort(port, 0) {
		return false
	}
	return host == "" || strings.HasPrefix(s, "[") || isHostName(host)
}

// isHost accepts an entry of api.allowed_hosts: what a Host header may say.
func isHost(v any) bool {
	s := v.(string)
	host, port, ok := splitHostPort(s)
	if !ok || port != "" && !isPort(port, 1) {
		return false
	}
	return strings.HasPrefix(s, "[") || isHostName(host)
}

// isPath accepts an empty string or an absolute path; a relative one would depend on where the daemon was started.
func isPath(most int) func(any) bool {
	return func(v any) bool {
		s := v.(string)
		return s == "" || filepath.IsAbs(s) && len(s) <= most && !strings.ContainsRune(s, 0)
	}
}

func always(any) bool { return true }

func oneOf(words ...string) func(any) bool {
	return func(v any) bool { return slices.Contains(words, v.(string)) }
}

func within[T cmp.Ordered](least, most T) func(any) bool {
	return func(v any) bool { return least <= v.(T) && v.(T) <= most }
}
