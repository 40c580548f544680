// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// Answers that say nothing about the key. None may be mistaken for its loss.
var (
	// drSecondary is how a disaster recovery secondary of Vault Enterprise answers
	// (sdk/helper/testcluster/replication.go in Vault).
	drSecondary = vaulttest.Fault{Status: http.StatusBadRequest, Body: `{"errors":["path disabled in replication DR secondary mode"]}`}
	// lagging is how a performance standby answers that has not yet the state which a
	// request needs (ErrMissingRequiredState in sdk/logical/error.go in Vault).
	lagging         = vaulttest.Fault{Status: http.StatusPreconditionFailed, Body: `{"errors":["required index state not present"]}`}
	proxyNotFound   = vaulttest.Fault{Status: http.StatusNotFound, Body: `{"errors":[]}`}
	proxyBadRequest = vaulttest.Fault{Status: http.StatusBadRequest, Body: `{"message":"bad request"}`}
)

// htmlPage answers with the page of a proxy, captive portal or firewall.
func htmlPage(s *stage, random *rand.Rand) (func() error, error) {
	statuses := []int{200, 400, 403, 404, 502, 503}
	status := statuses[random.IntN(len(statuses))]
	return layOver(vaulttest.Fault{
		Status: status, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
		Body: fmt.Sprintf("<html><title>%d</title>down for maintenance</html>\n", status),
	})(s, random)
}

// forgetConnections makes the connections that are open at this moment dead. They
// stay dead; new ones work.
func forgetConnections(s *stage, _ *rand.Rand) (func() error, error) {
	s.network.Forget()
	return func() error { return nil }, nil
}

// addStranger adds the address of another Vault: a mistake in config.yaml that the
// first address hides.
func addStranger(s *stage, random *rand.Rand) (func() error, error) {
	answers := []vaulttest.Fault{
		{}, // as usual: the token is unknown
		{Status: http.StatusNotFound, Body: `{"errors":["no handler for route \"transit/encrypt/` + keyName + `\". route entry not found."]}`},
		{Status: http.StatusBadRequest, Body: `{"errors":["encryption key not found"]}`},
	}
	return addSecond(s, s.stranger, answers[random.IntN(len(answers))])
}

// addStrangerAndBlip is addStranger while the first address fails a few requests now
// and then.
func addStrangerAndBlip(s *stage, random *rand.Rand) (func() error, error) {
	end, err := addStranger(s, random)
	if err != nil {
		return nil, err
	}
	first, requests := time.Second+time.Duration(random.IntN(2000))*time.Millisecond, 1+random.IntN(5)
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		remove := func() {}
		defer func() { remove() }()
		for wait := first; ; wait = 15 * time.Second {
			select {
			case <-stopped:
				return
			case <-time.After(wait):
			}
			remove()
			remove = s.vault.FailNext(requests, http.StatusInternalServerError, "")
		}
	}()
	return func() error {
		close(stopped)
		<-ended
		return end()
	}, nil
}

func addSecondary(s *stage, _ *rand.Rand) (func() error, error) {
	return addSecond(s, s.sibling, drSecondary)
}

// becomeSecondary adds a good second address; the first is a DR secondary.
func becomeSecondary(s *stage, random *rand.Rand) (func() error, error) {
	back, err := layOver(drSecondary)(s, random)
	if err != nil {
		return nil, err
	}
	s.agent.renderSecond(s.sibling.URL())
	return func() error {
		s.agent.renderSecond("")
		return back()
	}, nil
}

// addSecond adds the address of a server that has a fault.
func addSecond(s *stage, second *vaulttest.Server, fault vaulttest.Fault) (func() error, error) {
	remove := second.Inject(fault)
	s.agent.renderSecond(second.URL())
	return func() error {
		s.agent.renderSecond("")
		remove()
		return nil
	}, nil
}
