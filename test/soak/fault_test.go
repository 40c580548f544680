// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// newTestStage returns a stage whose trousseau is not started.
func newTestStage(t *testing.T) *stage {
	t.Helper()
	s, err := newStage("trousseau", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(true); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Each row is a fault, and whether direct calls succeed during it: if so, Status must
// be ok then. After it, everything must work as before, and the files must be intact.
func TestDirectCallsDuringAFault(t *testing.T) {
	const (
		succeed = iota
		fail
		depends
	)
	type row struct {
		outcome int
		seeds   uint64
	}
	rows := map[string]row{
		"token rotated, old one revoked at once":       {succeed, 1},
		"token rotated, old one revoked later":         {succeed, 1},
		"token rotated, old one revoked just before":   {succeed, 1},
		"Vault's clock moved":                          {depends, 1}, // on how far
		"key rotated":                                  {succeed, 1},
		"Vault sealed":                                 {fail, 1},
		"Vault stopped":                                {fail, 1},
		"Vault takes 1 s for each call":                {succeed, 1},
		"Vault resets connections":                     {depends, 1},
		"Vault truncates answers":                      {depends, 1},
		"network forgets its connections":              {succeed, 1},
		"Vault fails 30% of the requests":              {depends, 1},
		"Vault is a DR secondary":                      {fail, 1},
		"Vault lags behind (412)":                      {fail, 1},
		"a proxy's HTML page instead of Vault":         {fail, 6},
		"a proxy's JSON 404 instead of Vault":          {fail, 1},
		"a proxy's JSON 400 instead of Vault":          {fail, 1},
		"second address of another Vault":              {succeed, 6},
		"second address of another Vault, first blips": {succeed, 1},
		"second address of a DR secondary":             {succeed, 1},
		"first of two addresses is a DR secondary":     {succeed, 1},
		"CA replaced":                                  {fail, 2},
	}
	s := newTestStage(t)
	call := func() (addresses [2]string, err error) {
		says, intact := s.agent.onDisk()
		if !intact {
			t.Fatal("the files are not as rendered")
		}
		return says.addresses, says.roundTrip(t.Context())
	}
	before, err := call()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		want, known := rows[f.name]
		if !known {
			continue
		}
		delete(rows, f.name)
		t.Run(f.name, func(t *testing.T) {
			for seed := range want.seeds {
				end, err := f.begin(s, rand.New(rand.NewPCG(seed, 0)))
				if err != nil {
					t.Fatal(err)
				}
				_, err = call()
				if want.outcome != depends && (err == nil) != (want.outcome == succeed) {
					t.Errorf("seed %d, during the fault: got %v", seed, err)
				}
				if err := end(); err != nil {
					t.Fatal(err)
				}
				if after, err := call(); err != nil || after != before {
					t.Errorf("seed %d, after the fault: addresses %v, error %v", seed, after, err)
				}
			}
		})
	}
	for name := range rows {
		t.Errorf("no such fault: %s", name)
	}
}

func TestDirectCallsUseWhatTheFilesSay(t *testing.T) {
	s := newTestStage(t)
	good, intact := s.agent.onDisk()
	if !intact {
		t.Fatal("the files are not as rendered")
	}
	second := s.sibling.URL()
	for _, c := range []struct {
		name   string
		change func(*access)
		want   string // part of the error; "" for none
	}{
		{"as they are", func(*access) {}, ""},
		{"another token", func(a *access) { a.token = s.unknownToken }, "403"},
		{"another CA", func(a *access) { a.ca = string(s.stranger.CAPEM()) }, "unknown authority"},
		{"no client certificate", func(a *access) { a.cert = "" }, "certificate"},
		{"only the second works", func(a *access) { a.addresses = [2]string{s.stranger.URL(), second} }, ""},
		{"none works", func(a *access) { a.addresses = [2]string{s.stranger.URL(), "https://" + strings.Repeat("a", 64)} }, "403"},
	} {
		a := good
		c.change(&a)
		err := a.roundTrip(t.Context())
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDirectCallsAreNotCountedAsTrousseaus(t *testing.T) {
	s := newTestStage(t)
	says, _ := s.agent.onDisk()
	release := s.vault.Hang()
	called := make(chan error)
	go func() { called <- says.roundTrip(t.Context()) }()
	if err := s.vault.WaitInFlight(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got, direct := s.connections(), s.network.Connections(directHost); got != 0 || direct != 1 {
		t.Errorf("%d connections count as trousseau's and %d as direct, want 0 and 1", got, direct)
	}
	release()
	if err := <-called; err != nil {
		t.Error(err)
	}
}

func TestSecondAddressIsRendered(t *testing.T) {
	s := newTestStage(t)
	for _, second := range []string{s.stranger.URL(), ""} {
		s.agent.renderSecond(second)
		says, intact := s.agent.onDisk()
		if !intact || says.addresses[1] != second {
			t.Errorf("got %v, intact %t, want the second to be %q", says.addresses, intact, second)
		}
		var file struct {
			Vault struct {
				Address   string
				Addresses []string
			}
		}
		if err := yaml.Unmarshal([]byte(s.agent.should(configName)), &file); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(file.Vault.Addresses, " "); file.Vault.Address != says.addresses[0] || got != second {
			t.Errorf("config.yaml has %s and %q, want %s and %q", file.Vault.Address, got, says.addresses[0], second)
		}
	}
}

// A damaged file excuses trousseau, so damage must be seen, and its end.
func TestDamageIsSeen(t *testing.T) {
	s := newTestStage(t)
	for _, f := range faults {
		if f.touches != onConfig {
			continue
		}
		end, err := f.begin(s, rand.New(rand.NewPCG(1, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, intact := s.agent.onDisk(); intact {
			t.Errorf("%s: the files count as intact", f.name)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, intact := s.agent.onDisk(); !intact {
			t.Errorf("after %s: the files count as damaged", f.name)
		}
	}
}
