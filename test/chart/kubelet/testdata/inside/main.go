// SPDX-License-Identifier: Apache-2.0

// Command inside prints what a container can do, and ends on SIGTERM. With the
// arguments probe FILE, it is a probe that succeeds as long as the file exists.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "probe" {
		if _, err := os.Stat(os.Args[2]); err != nil {
			fmt.Printf("uid %d SAID=%q: %v\n", os.Getuid(), os.Getenv("SAID"), err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Printf("pid %d uid %d gid %d args %s HOME=%q SAID=%q\n", os.Getpid(), os.Getuid(), os.Getgid(),
		strings.Join(os.Args[1:], ","), os.Getenv("HOME"), os.Getenv("SAID"))
	for _, path := range []string{"/new", "/dev/new", "/memory/new", "/read-only/new", "/node/new"} {
		fmt.Printf("write %s: %v\n", path, reason(os.WriteFile(path, nil, 0o600)))
	}
	for _, path := range []string{"/config/file", "/secret/file", "/tmp", "/root", "/home"} {
		_, err := os.ReadFile(path)
		fmt.Printf("read %s: %v\n", path, reason(err))
	}
	entries, err := os.ReadDir("/")
	fmt.Printf("root %v %v\n", entries, err)
	fmt.Printf("mount: %v\n", reason(syscall.Mount("none", "/memory", "tmpfs", 0, "")))

	if len(os.Args) > 1 {
		serve(os.Args[1])
	}
	<-ctx.Done()
	fmt.Printf("SIGTERM at %d\n", time.Now().UnixNano())
}

func reason(err error) string {
	if err == nil {
		return "ok"
	}
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}

// serve answers probes with success until /fail has been requested.
func serve(addr string) {
	var bad atomic.Bool
	go func() {
		err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/fail" {
				bad.Store(true)
			}
			if bad.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		fmt.Println(err)
	}()
}
