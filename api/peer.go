package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection.
type peer struct {
	socket        bool           // over the unix socket; else TCP
	local, remote netip.AddrPort // of TCP, IPv4 never mapped into IPv6

	uid  func() (uint32, error) // looked up at the first call, once for the connection
	name func() string          // the user's name, likewise
}

type peerKey struct{}

// connContext is for http.Server.ConnContext: it remembers for the requests of a connection how that came.
func connContext(ctx context.Context, c net.Conn) context.Context {
	p := &peer{}
	switch local := c.LocalAddr().(type) {
	case *net.UnixAddr:
		p.socket = true
		p.uid = sync.OnceValues(func() (uint32, error) { return socketUID(c) })
	case *net.TCPAddr:
		remote, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok {
			return ctx // a peer that is unknown is refused
		}
		p.local, p.remote = unmapped(local.AddrPort()), unmapped(remote.AddrPort())
		p.uid = sync.OnceValues(func() (uint32, error) { return peerUID(p.local, p.remote) })
	default:
		return ctx
	}
	p.name = sync.OnceValue(p.lookupName)
	return context.WithValue(ctx, peerKey{}, p)
}

// peerOf is the peer of the connection that r came by; nil where connContext did not see it.
func peerOf(r *http.Request) *peer {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	return p
}

// onThisHost reports whether the peer's process is on this host: what comes by loopback can't have come from elsewhere.
func (p *peer) onThisHost() bool {
	return p.socket || p.remote.Addr().IsLoopback() && p.local.Addr().IsLoopback()
}

func (p *peer) lookupName() string {
	uid, err := p.uid()
	if err != nil {
		return p.remote.Addr().String() // of another host; admitted by its token
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id // not in the user database, as often in containers
}

// actor says who asks, and by which way: what events and holds record.
func actor(r *http.Request) (by, via string) {
	switch p := peerOf(r); {
	case p == nil:
		return "unknown", "http"
	case p.socket:
		return p.name(), "socket"
	default:
		return p.name(), "http"
	}
}

// sameUser reports whether uid is the daemon's own or root's, who may do all that the daemon can anyway.
func sameUser(uid uint32) bool { return uid == uint32(os.Geteuid()) || uid == 0 }

// socketUID is the uid that the kernel noted when the other end connected (SO_PEERCRED, unix(7)).
func socketUID(c net.Conn) (uint32, error) {
	raw, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("credentials of the peer: %T has no descriptor", c)
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("credentials of the peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = rc.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("credentials of the peer: %w", err)
	}
	return cred.Uid, nil
}

// errNoOwner means that no process holds the socket at the other end: it is closed, in TIME_WAIT, or of another network
// namespace. The kernel shows uid 0 for such sockets, which must not be taken for root.
var errNoOwner = errors.New("no process holds the other end of the connection")

// peerUID is the uid of the process at the other end of a loopback TCP connection: local and remote are as the daemon's
// own end has them. Only a socket with exactly these two ends counts, and only while a process has it open. The kernel is
// asked by sock_diag(7), where that is not to be had by /proc/net/tcp. Who can't be found is to be treated as a stranger.
func peerUID(local, remote netip.AddrPort) (uint32, error) {
	return ownerBy(unmapped(remote), unmapped(local), diagUID, procUID)
}

// ownerBy asks in each way until one knows, be it that nobody owns the socket with the ends src (its own) and dst.
func ownerBy(src, dst netip.AddrPort, ways ...func(src, dst netip.AddrPort) (uint32, error)) (uint32, error) {
	var failed error
	for _, ask := range ways {
		uid, err := ask(src, dst)
		if err == nil || errors.Is(err, errNoOwner) {
			return uid, err
		}
		failed = errors.Join(failed, err)
	}
	return 0, failed
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Layout of struct inet_diag_sockid, inet_diag_req_v2 and inet_diag_msg (linux/inet_diag.h); ports and addresses are in
// network order, the rest in the host's.
const (
	diagIDSize  = 48 // sport, dport, src[4], dst[4], if, cookie[2]
	diagReqSize = 8 + diagIDSize
	diagMsgSize = 4 + diagIDSize + 20 // … expires, rqueue, wqueue, uid, inode
	diagUIDAt   = 4 + diagIDSize + 12
	diagInodeAt = 4 + diagIDSize + 16

	diagTimeout = 1 // second; the kernel answers at once
)

// diagUID asks the kernel for the socket with the ends src (its own) and dst.
func diagUID(src, dst netip.AddrPort) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing to lose
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: diagTimeout}); err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	if err := unix.Sendto(fd, diagRequest(src, dst), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	answer := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, fmt.Errorf("sock_diag: %w", err)
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return 0, errors.New("sock_diag: an answer that is not the kernel's")
	}
	return diagAnswer(answer[:n], src, dst)
}

// diagRequest asks for one socket by its exact ends, in no particular state.
func diagRequest(src, dst netip.AddrPort) []byte {
	native := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+diagReqSize)
	native.PutUint32(b[0:], unix.SizeofNlMsghdr+diagReqSize)
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	family := byte(unix.AF_INET6)
	if src.Addr().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = native.AppendUint32(b, ^uint32(0)) // states: all
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	for _, a := range []netip.Addr{src.Addr(), dst.Addr()} {
		var field [16]byte
		copy(field[:], a.AsSlice())
		b = append(b, field[:]...)
	}
	b = native.AppendUint32(b, 0)          // any interface
	b = native.AppendUint64(b, ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// diagAnswer reads the uid from the kernel's answer. What it says of another socket does not count: where no connection
// fits, the kernel looks for a listener.
func diagAnswer(answer []byte, src, dst netip.AddrPort) (uint32, error) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 {
		return 0, errors.Join(errors.New("sock_diag: no answer that makes sense"), err)
	}
	m := messages[0]
	if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
		return 0, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
	}
	if m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagMsgSize {
		return 0, errors.New("sock_diag: no answer that makes sense")
	}
	ends := [2]netip.AddrPort{}
	for i := range ends {
		field := m.Data[8+16*i : 8+16*(i+1)]
		if m.Data[0] == unix.AF_INET {
			field = field[:4]
		}
		addr, _ := netip.AddrFromSlice(field) // 4 or 16 bytes, as it must be
		ends[i] = netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(m.Data[4+2*i:]))
	}
	if ends != [2]netip.AddrPort{src, dst} || binary.NativeEndian.Uint32(m.Data[diagInodeAt:]) == 0 {
		return 0, errNoOwner
	}
	return binary.NativeEndian.Uint32(m.Data[diagUIDAt:]), nil
}

// procUID looks for the socket with the ends src (its own) and dst in the tables of proc(5). One of IPv6 that speaks to
// an IPv4 address stands in the table of IPv6.
func procUID(src, dst netip.AddrPort) (uint32, error) {
	files := []string{"/proc/net/tcp6"}
	if src.Addr().Is4() {
		files = []string{"/proc/net/tcp", "/proc/net/tcp6"}
	}
	for _, name := range files {
		uid, err := scanSockets(name, src, dst)
		if !errors.Is(err, errNoOwner) {
			return uid, err
		}
	}
	return 0, errNoOwner
}

func scanSockets(name string, src, dst netip.AddrPort) (uint32, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, errNoOwner // a kernel without IPv6
	}
	if err != nil {
		return 0, fmt.Errorf("owner of a connection: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode, …
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || procAddr(fields[1]) != src || procAddr(fields[2]) != dst {
			continue
		}
		uid, err := strconv.ParseUint(fields[7], 10, 32)
		if err != nil || fields[9] == "0" {
			return 0, errNoOwner
		}
		return uint32(uid), nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("owner of a connection: %w", err)
	}
	return 0, errNoOwner
}

// procAddr reads "0100007F:22C4": an address in hexadecimal words of the host's order, and a port. What is none (the
// table's heading) is no address.
func procAddr(s string) netip.AddrPort {
	words, portText, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	var bytes []byte
	for ; len(words) >= 8; words = words[8:] {
		word, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}
		}
		bytes = binary.NativeEndian.AppendUint32(bytes, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(bytes)
	if !ok || words != "" {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port))
}
