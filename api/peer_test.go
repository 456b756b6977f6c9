package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strangerUID is the user that tests run requests as when they may choose (nobody in Debian).
const strangerUID = 65534

// The test binary started with this variable, "NETWORK ADDRESS", is a client: it sends what it reads, and writes what is
// answered until the connection is closed.
const clientRole = "CORTEX_API_TEST_CLIENT"

func init() {
	role := os.Getenv(clientRole)
	if role == "" {
		return
	}
	network, address, _ := strings.Cut(role, " ")
	conn, err := net.Dial(network, address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := io.Copy(conn, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stranger is the uid that asStranger runs as: another one where the test is root and may choose, else one's own.
func stranger() uint32 {
	if os.Geteuid() == 0 {
		return strangerUID
	}
	return uint32(os.Geteuid())
}

// asStranger makes the client role's process. It is started by /proc/self/exe, since the folder of the test binary may be
// closed to others.
func asStranger(t *testing.T, network, address, request string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{clientRole + "=" + network + " " + address}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(request)
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangerUID, Gid: strangerUID}}
	}
	return cmd
}

// ends is a connection as its server has it, and its client.
type ends struct {
	server *net.TCPConn
	client io.Closer
}

func (e ends) local() netip.AddrPort  { return e.server.LocalAddr().(*net.TCPAddr).AddrPort() }
func (e ends) remote() netip.AddrPort { return e.server.RemoteAddr().(*net.TCPAddr).AddrPort() }

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// connectPair opens a connection to a new listener.
func connectPair(t *testing.T, network, address string, dial func(net.Addr) (io.Closer, error)) ends {
	t.Helper()
	l := listenOn(t, network, address)
	client, err := dial(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return ends{server.(*net.TCPConn), client}
}

func plainDial(a net.Addr) (io.Closer, error) { return net.Dial(a.Network(), a.String()) }

type descriptor int

func (d descriptor) Close() error { return unix.Close(int(d)) }

// mappedDial connects a socket of IPv6 to an address of IPv4, as some languages do by default.
func mappedDial(a net.Addr) (io.Closer, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := a.(*net.TCPAddr).AddrPort()
	return descriptor(fd), unix.Connect(fd, &unix.SockaddrInet6{
		Port: int(to.Port()), Addr: netip.AddrFrom4(to.Addr().As4()).As16(),
	})
}

// lookups are the two ways of peerUID, each to be held to the same.
var lookups = map[string]func(src, dst netip.AddrPort) (uint32, error){"sock_diag": diagUID, "proc": procUID}

func TestPeerUIDOfOwnProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, network, address string
		dial                   func(net.Addr) (io.Closer, error)
	}{
		{"IPv4", "tcp4", "127.0.0.1:0", plainDial},
		{"IPv6", "tcp6", "[::1]:0", plainDial},
		{"IPv4 to a listener of both", "tcp", "[::]:0", func(a net.Addr) (io.Closer, error) {
			return net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", a.(*net.TCPAddr).Port))
		}},
		{"IPv6 socket to IPv4", "tcp4", "127.0.0.1:0", mappedDial},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := connectPair(t, c.network, c.address, c.dial)
			want := uint32(os.Geteuid())
			if uid, err := peerUID(e.local(), e.remote()); err != nil || uid != want {
				t.Errorf("peerUID: %d %v, want %d", uid, err, want)
			}
			for name, lookup := range lookups {
				if uid, err := lookup(unmapped(e.remote()), unmapped(e.local())); err != nil || uid != want {
					t.Errorf("%s: %d %v, want %d", name, uid, err, want)
				}
			}
		})
	}
}

func TestPeerUIDOfAnotherUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		l := listenOn(t, c.network, c.address)
		cmd := asStranger(t, c.network, l.Addr().String(), "")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		e := ends{server: conn.(*net.TCPConn)}
		for name, lookup := range lookups {
			if uid, err := lookup(e.remote(), e.local()); err != nil || uid != stranger() {
				t.Errorf("%s %s: %d %v, want %d", c.network, name, uid, err, stranger())
			}
		}
		if err := errors.Join(conn.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}
}

// TestPeerUIDOfNobody: the kernel shows sockets without a process, with uid 0. That must not pass for root.
func TestPeerUIDOfNobody(t *testing.T) {
	t.Parallel()
	check := func(what string, local, remote netip.AddrPort) {
		t.Helper()
		if uid, err := peerUID(local, remote); err == nil {
			t.Errorf("%s: taken for uid %d", what, uid)
		}
		for name, lookup := range lookups {
			if uid, err := lookup(remote, local); err == nil {
				t.Errorf("%s, %s: taken for uid %d", what, name, uid)
			}
		}
	}
	e := connectPair(t, "tcp4", "127.0.0.1:0", plainDial)
	local, remote := e.local(), e.remote()
	check("another port of the client", local, netip.AddrPortFrom(remote.Addr(), remote.Port()^1))
	check("another port of the daemon", netip.AddrPortFrom(local.Addr(), local.Port()^1), remote)
	check("both ends swapped with a listener", netip.AddrPortFrom(local.Addr(), 9), local)
	if err := e.client.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed by the client (FIN_WAIT2)", local, remote)
	if _, err := e.server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := e.server.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed by both (TIME_WAIT)", local, remote)
}

func TestOwnerByAsksOnWhileNobodyKnows(t *testing.T) {
	t.Parallel()
	type way = func(_, _ netip.AddrPort) (uint32, error)
	knows := func(_, _ netip.AddrPort) (uint32, error) { return 1000, nil }
	none := func(_, _ netip.AddrPort) (uint32, error) { return 0, errNoOwner }
	fails := func(_, _ netip.AddrPort) (uint32, error) { return 0, unix.EPERM }
	for name, c := range map[string]struct {
		ways []way
		uid  uint32
		err  error
	}{
		"the first knows":   {[]way{knows, none}, 1000, nil},
		"only the second":   {[]way{fails, knows}, 1000, nil},
		"nobody has it":     {[]way{none, knows}, 0, errNoOwner},
		"neither can tell":  {[]way{fails, fails}, 0, unix.EPERM},
		"the second denies": {[]way{fails, none}, 0, errNoOwner},
	} {
		if uid, err := ownerBy(netip.AddrPort{}, netip.AddrPort{}, c.ways...); uid != c.uid || !errors.Is(err, c.err) {
			t.Errorf("%s: %d %v", name, uid, err)
		}
	}
}

// TestPeerUIDWhenHalfClosed: a client that only says that it has sent all is there still.
func TestPeerUIDWhenHalfClosed(t *testing.T) {
	t.Parallel()
	e := connectPair(t, "tcp4", "127.0.0.1:0", plainDial)
	if err := e.client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if uid, err := peerUID(e.local(), e.remote()); err != nil || uid != uint32(os.Geteuid()) {
		t.Errorf("%d %v", uid, err)
	}
}

// diagMessage is an answer of the kernel with the type and data given.
func diagMessage(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, unix.SizeofNlMsghdr-len(b))...)
	return append(b, data...)
}

func TestDiagAnswer(t *testing.T) {
	t.Parallel()
	src, dst := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8900")
	socket := make([]byte, diagMsgSize)
	socket[0] = unix.AF_INET
	copy(socket[4:], diagRequest(src, dst)[unix.SizeofNlMsghdr+8:])
	binary.NativeEndian.PutUint32(socket[diagUIDAt:], 1000)
	orphan := bytes.Clone(socket)
	binary.NativeEndian.PutUint32(socket[diagInodeAt:], 77)

	if uid, err := diagAnswer(diagMessage(unix.SOCK_DIAG_BY_FAMILY, socket), src, dst); err != nil || uid != 1000 {
		t.Errorf("a good answer: %d %v", uid, err)
	}
	for name, c := range map[string]struct {
		answer []byte
		want   error
	}{
		"no process":     {diagMessage(unix.SOCK_DIAG_BY_FAMILY, orphan), errNoOwner},
		"an error":       {diagMessage(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.EPERM)+1)), unix.EPERM},
		"a short error":  {diagMessage(unix.NLMSG_ERROR, nil), nil},
		"another kind":   {diagMessage(unix.NLMSG_DONE, socket), nil},
		"a short socket": {diagMessage(unix.SOCK_DIAG_BY_FAMILY, socket[:diagMsgSize-4]), nil},
		"nothing":        {nil, nil},
		"half a header":  {make([]byte, 20), nil},
	} {
		uid, err := diagAnswer(c.answer, src, dst)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %d %v, want %v", name, uid, err, c.want)
		}
	}
	if uid, err := diagAnswer(diagMessage(unix.SOCK_DIAG_BY_FAMILY, socket), src, src); !errors.Is(err, errNoOwner) {
		t.Errorf("another socket: %d %v", uid, err)
	}
}

func TestScanSockets(t *testing.T) {
	t.Parallel()
	src, dst := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8900")
	le := binary.NativeEndian.Uint32([]byte{127, 0, 0, 1})
	line := func(uid, inode string) string {
		return fmt.Sprintf("  sl  local_address rem_address ...\n   0: %08X:9C40 %08X:22C4 01 0:0 00:0 0 %s 0 %s 1\n", le, le, uid, inode)
	}
	for name, c := range map[string]struct {
		table string
		uid   uint32
		found bool
	}{
		"there":          {line("1000", "77"), 1000, true},
		"no process":     {line("0", "0"), 0, false},
		"no uid":         {line("x", "77"), 0, false},
		"empty":          {"", 0, false},
		"other lines":    {"x\n" + strings.Repeat("a:b ", 12) + "\n" + strings.Repeat("0100007:1 ", 12), 0, false},
		"too long lines": {strings.Repeat("x", 1<<20), 0, false},
	} {
		path := t.TempDir() + "/tcp"
		if err := os.WriteFile(path, []byte(c.table), 0o600); err != nil {
			t.Fatal(err)
		}
		if uid, err := scanSockets(path, src, dst); uid != c.uid || (err == nil) != c.found {
			t.Errorf("%s: %d %v", name, uid, err)
		}
	}
	if _, err := scanSockets(t.TempDir()+"/absent", src, dst); !errors.Is(err, errNoOwner) {
		t.Errorf("no table: %v", err)
	}
	if _, err := scanSockets("/dev/null/x", src, dst); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a table that can't be opened: %v", err)
	}
}

func TestProcAddr(t *testing.T) {
	t.Parallel()
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 { // the samples are of a little-endian machine
		for text, want := range map[string]string{
			"0100007F:22C4":                         "127.0.0.1:8900",
			"00000000000000000000000001000000:22C4": "[::1]:8900",
			"0000000000000000FFFF00000100007F:0001": "127.0.0.1:1",
		} {
			if got := procAddr(text); got != netip.MustParseAddrPort(want) {
				t.Errorf("%s: %v, want %s", text, got, want)
			}
		}
	}
	for _, text := range []string{"", ":", "local_address", "0100007F", "0100007F:", "0100007:22C4", "0100007F:22C4F", "0100007Z:22C4",
		"0100007F0100007F:22C4"} {
		if got := procAddr(text); got.IsValid() {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}

// faceless is a connection without a descriptor.
type faceless struct{ net.Conn }

func (faceless) LocalAddr() net.Addr  { return &net.UnixAddr{} }
func (faceless) RemoteAddr() net.Addr { return &net.UnixAddr{} }

// crossed has two ends of different kinds.
type crossed struct{ net.Conn }

func (crossed) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (crossed) RemoteAddr() net.Addr { return &net.UnixAddr{} }

func TestConnContextOfUnknownConnections(t *testing.T) {
	t.Parallel()
	pipe, other := net.Pipe()
	defer func() { _ = errors.Join(pipe.Close(), other.Close()) }()
	for _, c := range []net.Conn{pipe, crossed{}} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(connContext(r.Context(), c))
		if peerOf(r) != nil {
			t.Errorf("%T has a peer", c)
		}
		if by, via := actor(r); by != "unknown" || via != "http" {
			t.Errorf("%T: actor %q %q", c, by, via)
		}
	}
	if uid, err := socketUID(faceless{}); err == nil {
		t.Errorf("a connection without a descriptor is of uid %d", uid)
	}
	l := listenOn(t, "unix", t.TempDir()+"/s")
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if uid, err := socketUID(conn); err == nil {
		t.Errorf("a closed connection is of uid %d", uid)
	}
}

// TestPeerIsLookedUpOncePerConnection: what was found stays, also when the client has gone since.
func TestPeerIsLookedUpOncePerConnection(t *testing.T) {
	t.Parallel()
	e := connectPair(t, "tcp4", "127.0.0.1:0", plainDial)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r = r.WithContext(connContext(context.Background(), e.server))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if by, via := actor(r); by != me.Username || via != "http" {
			t.Errorf("actor %q %q, want %q", by, via, me.Username)
		}
		if uid, err := peerOf(r).uid(); err != nil || !sameUser(uid) {
			t.Errorf("uid %d %v", uid, err)
		}
		if err := e.client.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
}

func TestNamesOfPeers(t *testing.T) {
	t.Parallel()
	p := &peer{remote: netip.MustParseAddrPort("192.0.2.7:5"), uid: func() (uint32, error) { return 0, errNoOwner }}
	if name := p.lookupName(); name != "192.0.2.7" {
		t.Errorf("of another host: %q", name)
	}
	p.uid = func() (uint32, error) { return 4_000_000_001, nil }
	if name := p.lookupName(); name != "uid 4000000001" {
		t.Errorf("without a name: %q", name)
	}
}

func TestSameUser(t *testing.T) {
	t.Parallel()
	own := uint32(os.Geteuid())
	if !sameUser(own) || !sameUser(0) || sameUser(own+1) || sameUser(strangerUID) != (own == strangerUID) {
		t.Errorf("as uid %d: own %v, root %v, next %v, stranger %v",
			own, sameUser(own), sameUser(0), sameUser(own+1), sameUser(strangerUID))
	}
}

// rawPatience is how long tests wait for what must come.
const rawPatience = 20 * time.Second
