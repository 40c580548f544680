// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// reservedPort keeps a TCP port ours while nothing listens on it. A socket that is bound but does not listen makes the
// kernel refuse connections, and keeps it from giving the port to anybody else, not even as the source port of an
// outgoing connection. net.Listen can bind it again because both sockets set SO_REUSEADDR (ip(7), socket(7)).
type reservedPort struct {
	addr string
	fd   int
}

func reservePort(addr string) (*reservedPort, error) {
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
	return &reservedPort{addr: bound, fd: fd}, nil
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

func (p *reservedPort) close() error { return syscall.Close(p.fd) }
