// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"time"

	kmsapi "k8s.io/kms/apis/v2"
)

func statusChecks() []Check {
	return inGroup("status",
		must(statusAnswers, "Status is answered within the timeout.",
			sourceProbe+"kmsv2PluginProbe.check", checkStatusAnswers),
		must("status-version", "Status.version is v2 or v2beta1.",
			sourceProbe+"isKMSv2ProviderHealthyAndMaybeRotateDEK", answered(checkVersion), statusAnswers),
		must("status-version-stable", "Status.version never changes.",
			sourceProbe+"isKMSv2ProviderHealthyAndMaybeRotateDEK", checkVersionStable, statusAnswers),
		must("status-healthz", "Status.healthz is exactly ok.",
			sourceKEP+"Status API; "+sourceProbe+"isKMSv2ProviderHealthyAndMaybeRotateDEK", answered(checkHealthz), statusAnswers),
		must("status-key-id", "Status.key_id has 1 to 1024 bytes.",
			sourceEnvelope+"ValidateKeyID", answered(checkKeyID), statusAnswers),
		must("status-key-id-stable", "Status.key_id stays the same on all connections until the key is rotated.",
			sourceKEP+"key_id and rotation; "+sourceProbe+"rotateDEKOnKeyIDChange", checkKeyIDStable, statusAnswers),
	)
}

func checkStatusAnswers(ctx context.Context, s *subject) outcome {
	start := time.Now()
	if _, err := s.main.status(ctx); err != nil {
		return broken("Read the plugin's log. kube-apiserver marks such a plugin unhealthy, and stops writing within 3 minutes.", "%s", said(err))
	}
	return pass("after %s", rounded(time.Since(start)))
}

// answered is a check of one answer.
func answered(check func(*kmsapi.StatusResponse) outcome) func(context.Context, *subject) outcome {
	return func(ctx context.Context, s *subject) outcome {
		st, err := s.main.status(ctx)
		if err != nil {
			return broken("", "%s", said(err))
		}
		return check(st)
	}
}

func checkVersion(st *kmsapi.StatusResponse) outcome {
	if st.GetVersion() != "v2" && st.GetVersion() != "v2beta1" {
		return broken("Return version v2 in Status.", "%q", shortened(st.GetVersion()))
	}
	return pass("%s", st.GetVersion())
}

func checkHealthz(st *kmsapi.StatusResponse) outcome {
	if st.GetHealthz() != "ok" {
		return broken("Return healthz ok if the plugin is healthy. If this text is an error, fix its cause.", "%q", shortened(st.GetHealthz()))
	}
	return pass("ok")
}

func checkKeyID(st *kmsapi.StatusResponse) outcome {
	switch size := len(st.GetKeyId()); {
	case size == 0:
		return broken("Return the public name of the key in Status, or an error if there is no key.", "it is empty")
	case size > maxKeyID:
		return broken("Use a hash of the key's name as key_id.", "it has %d bytes", size)
	}
	return pass("%s", shortened(st.GetKeyId()))
}

// observed calls Status on one connection and then on new ones, and returns one field
// of each answer.
func observed(ctx context.Context, s *subject, field func(*kmsapi.StatusResponse) string) ([]string, error) {
	const onOne, onNew = 8, 4
	var all []string
	see := func(c *caller) error {
		st, err := c.status(ctx)
		all = append(all, field(st))
		return err
	}
	for range onOne {
		if err := see(s.main); err != nil {
			return nil, err
		}
	}
	for range onNew {
		c, err := s.connect()
		if err != nil {
			return nil, err
		}
		err = see(c)
		c.close()
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func checkVersionStable(ctx context.Context, s *subject) outcome {
	all, err := observed(ctx, s, (*kmsapi.StatusResponse).GetVersion)
	if err != nil {
		return broken("", "%s", said(err))
	}
	if at := change(all); at > 0 {
		return broken("Return the same version as long as the plugin runs: kube-apiserver keeps the first one that it has seen.", "%q, then %q", shortened(all[at-1]), shortened(all[at]))
	}
	return pass("the same %d times", len(all))
}

func checkKeyIDStable(ctx context.Context, s *subject) outcome {
	all, err := observed(ctx, s, (*kmsapi.StatusResponse).GetKeyId)
	if err != nil {
		return broken("", "%s", said(err))
	}
	if at := change(all); at > 0 {
		return broken("If the key was just rotated, run this again. Otherwise note that each change makes all data stale and kube-apiserver use a new seed: announce a new key_id once, and never return to an old one.",
			"%q, then %q", shortened(all[at-1]), shortened(all[at]))
	}
	return pass("the same %d times", len(all))
}

// change returns the first index at which a value differs from the previous one; 0 if
// there is none.
func change(values []string) int {
	for i := 1; i < len(values); i++ {
		if values[i] != values[i-1] {
			return i
		}
	}
	return 0
}

// rounded rounds a duration to two or three digits.
func rounded(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Microsecond)
}
