// SPDX-License-Identifier: Apache-2.0

// Package loopback reserves addresses for the servers that tests start, and breaks
// the paths to them.
package loopback

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Port reserves a TCP port while no server listens on it, for example while the
// server is restarted. A socket that is bound but does not listen makes the kernel
// refuse connections and keeps it from assigning the port to another process, even
// as the source port of an outgoing connection. net.Listen, in this process or
// another, can still bind it because both sockets set SO_REUSEADDR (ip(7),
// socket(7)).
type Port struct {
	// Addr is the IPv4 address and port.
	Addr string
	fd   int
}

// Reserve reserves addr, an IPv4 address and port, until Release. Port 0 means any
// free port; "" means any free port of 127.0.0.1.
func Reserve(addr string) (*Port, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	want, err := netip.ParseAddrPort(addr)
	if err != nil || !want.Addr().Is4() {
		return nil, fmt.Errorf("reserving %s: not an IPv4 address and port", addr)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserving %s: %w", addr, os.NewSyscallError("socket", err))
	}
	bound, err := bind(fd, want)
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("reserving %s: %w", addr, err)
	}
	return &Port{Addr: bound, fd: fd}, nil
}

func bind(fd int, want netip.AddrPort) (string, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return "", os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: want.Addr().As4(), Port: int(want.Port())}); err != nil {
		return "", os.NewSyscallError("bind", err)
	}
	got, err := syscall.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	inet, ok := got.(*syscall.SockaddrInet4)
	if !ok {
		return "", fmt.Errorf("getsockname: unexpected address type %T", got)
	}
	return (&net.TCPAddr{IP: inet.Addr[:], Port: inet.Port}).String(), nil
}

// Release releases the port. Call it once.
func (p *Port) Release() { _ = syscall.Close(p.fd) }
