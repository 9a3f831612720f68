package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// The kernel's SCTP in its TCP-like style, by plain system calls.

func sctpSocket() (int, error) {
	return syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, syscall.IPPROTO_SCTP)
}

func sctpAvailable() bool {
	fd, err := sctpSocket()
	if err != nil {
		return false
	}
	_ = syscall.Close(fd)
	return true
}

func serveSCTP(addr string) error {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return err
	}
	fd, err := sctpSocket()
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet6{Port: port}), syscall.Listen(fd, 64)); err != nil {
		return err
	}
	for {
		c, _, err := syscall.Accept(fd)
		if err != nil {
			return err
		}
		go func() {
			defer syscall.Close(c)
			b := make([]byte, 65536)
			for {
				n, err := syscall.Read(c, b)
				if n <= 0 || err != nil {
					return
				}
				_, _ = syscall.Write(c, b[:n])
			}
		}()
	}
}

func dialSCTP(to netip.AddrPort) error {
	fd, err := sctpSocket()
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Connect(fd, &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
}
