// SPDX-License-Identifier: Apache-2.0

// Package reencrypt makes kube-apiserver rewrite the objects that are not stored
// under the current key_id, so that older versions of the key can be retired.
//
// It sends an empty JSON merge patch for each object. kube-apiserver applies it to
// the current object, inside its own compare-and-swap, so that no concurrent update
// is lost. kube-apiserver writes an object that the patch does not change only if the
// stored data is stale: under another key_id, or by another provider than the first
// (GuaranteedUpdate in apiserver/pkg/storage/etcd3/store.go; TransformFromStorage
// in apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go and in
// apiserver/pkg/storage/value/transformer.go).
//
// An API server compares with the key_id that its own plugin has announced to it. If
// it does not know the new key_id yet, it silently skips the object. Therefore
// nothing is sent before all API servers know it; see [Options]. The same is true of
// kube-controller-manager's storage migration, which sends such patches too.
//
// Lists and answers to patches have only metadata: no value of a Secret reaches this
// process.
package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// Via is how objects are rewritten.
type Via string

// The ways to rewrite objects.
const (
	// Auto is Migration where the cluster serves it and it succeeds, and else Walk.
	Auto Via = "auto"
	// Walk patches each object.
	Walk Via = "walk"
	// Migration creates a StorageVersionMigration (storagemigration.k8s.io/v1, on by
	// default since Kubernetes 1.37), which kube-controller-manager executes.
	Migration Via = "migration"
)

// Options say what to rewrite, and through which API servers.
type Options struct {
	// Config is for the API server that rewrites the objects, or for a load balancer.
	// It is not changed.
	Config *rest.Config
	// APIServers are the URLs of all API servers, which accept Config's credentials.
	// Nil means those of the Service kubernetes if there are several, else Config's.
	APIServers []string
	// Plugins say how to ask the plugins of all API servers.
	Plugins fleet.Options
	// KeyIDHash is the hash of the key_id to wait for; "" for the one that all plugins
	// have.
	KeyIDHash string
	// EncryptionConfig is the text of the file that all API servers have loaded, which
	// they confirm. It says which provider writes a resource. Nil if it is unknown:
	// then every provider of an API server must know the key_id.
	EncryptionConfig []byte
	// Resources are named as in EncryptionConfiguration; *., *.group and *.* are
	// wildcards.
	Resources []string
	Via       Via
	// DryRun has kube-apiserver check each patch, and write nothing.
	DryRun bool
	// Rate is the maximum number of patches per second.
	Rate rate.Limit
	// Concurrency is the maximum number of concurrent patches.
	Concurrency int
	// MaxRefusals ends a resource after so many failures with no success in between,
	// because these have one cause; 0 for no limit.
	MaxRefusals int
	// State is a checkpoint file, from which the next run resumes; "" for none.
	State string
	// Stale finds in etcd which objects to rewrite. If it is nil, every object is
	// patched, and the API server decides which to write.
	Stale Stale
	// Wait is how long to wait for the API servers to learn the new key_id.
	Wait time.Duration
	// Patience is how long an API server may be unreachable; 0 means 2 minutes.
	Patience time.Duration
	// Waiting is called with the reason when a wait begins and when the reason
	// changes; may be nil.
	Waiting func(reason string)
	// Progress is called with the number of objects of a resource that are done, and
	// their total; may be nil. It is not called concurrently.
	Progress func(resource string, done, total int64)
}

// Report is the result of a run.
type Report struct {
	// KeyIDHash is the hash of the current key_id.
	KeyIDHash string `json:"keyIDHash"`
	// APIServers are those that were checked to know it.
	APIServers []string `json:"apiServers"`
	// DryRun says that nothing was written.
	DryRun bool `json:"dryRun,omitempty"`
	// Resumed says that the run resumed an earlier one, whose objects count too.
	Resumed   bool              `json:"resumed"`
	Resources []Resource        `json:"resources"`
	Findings  []finding.Finding `json:"-"`
}

// Resource is the result for one resource.
type Resource struct {
	Name string `json:"name"`
	// Provider is the KMS v2 provider that writes it; "" if that is unknown.
	Provider string `json:"provider,omitempty"`
	// Migration is the StorageVersionMigration that kube-controller-manager executed.
	// The numbers below count only what was patched beside it.
	Migration string `json:"migration,omitempty"`
	// Note says why there is none, although one was tried.
	Note string `json:"note,omitempty"`
	// Objects is how many were patched: the sum of the next three and of Failures. In
	// a dry run it is how many would be.
	Objects int `json:"objects"`
	// Rewritten counts the objects that were written, by us or another client.
	Rewritten int `json:"rewritten"`
	// Current counts those that were under the current key_id already.
	Current int `json:"current"`
	// Gone counts those that were deleted during the run.
	Gone     int       `json:"gone"`
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is an object that could not be rewritten.
type Failure struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Reason is what kube-apiserver says.
	Reason string `json:"reason"`
}

// The IDs of the findings. All but NotProven are errors.
const (
	// Refused: objects could not be rewritten.
	Refused = "refused"
	// Stopped: too many failures in a row ended a resource.
	Stopped = "stopped"
	// NotListed: kube-apiserver does not list a resource.
	NotListed = "not-listed"
	// OtherProvider: another provider writes a resource.
	OtherProvider = "other-provider"
	// NotEncrypted: kube-apiserver does not encrypt a resource.
	NotEncrypted = "not-encrypted"
	// MigrationFailed: kube-controller-manager has not migrated a resource.
	MigrationFailed = "migration-failed"
	// NotProven: a migration has succeeded, but nobody has looked into etcd.
	NotProven = "not-proven"
)

// problem is an error that ends the work on one resource, but not the run.
type problem struct{ id, text, do string }

func (p problem) Error() string { return p.text }

// Run rewrites the stale objects, until all are done or ctx is. An object or a resource
// that could not be rewritten is a finding and not an error. With Options.State, the
// next run retries only these objects, or resumes an interrupted run. The error says
// what to do. The report is valid also with an error.
//
// If the key is rotated meanwhile, Run starts over, unless Options.KeyIDHash says which
// key_id is wanted. The report is then of the last pass.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	for {
		w, err := begin(ctx, o)
		if err != nil {
			return Report{Resources: []Resource{}}, err
		}
		err = w.run(ctx)
		if o.KeyIDHash != "" || !errors.Is(err, errRotated) {
			return w.report(), err
		}
		if o.Waiting != nil {
			o.Waiting(errRotated.Error())
		}
	}
}

// Await waits until nothing prevents Run from rewriting: all plugins and API servers have
// the key_id.
func Await(ctx context.Context, o Options) error {
	o.State = ""
	_, err := begin(ctx, o)
	return err
}

// begin waits for the gate to open.
func begin(ctx context.Context, o Options) (*walk, error) {
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	w := &walk{opts: o, cluster: c}
	if w.kinds, err = c.kinds(ctx, o.Resources); err != nil {
		return nil, err
	}
	if w.gate, err = newGate(ctx, o, c, w.kinds); err != nil {
		return nil, err
	}
	if w.hash, err = w.gate.await(ctx, o.Wait); err != nil {
		return nil, fmt.Errorf("not started, because objects could stay under an older key_id: %w", err)
	}
	w.gate.began = w.gate.now
	w.held = time.Now()
	w.state, err = openState(ctx, o.State, c, w.hash)
	return w, err
}

func (w *walk) run(ctx context.Context) error {
	for i, k := range w.kinds {
		err := w.resource(ctx, i, k)
		var own problem
		switch {
		case errors.As(err, &own):
			w.findings = append(w.findings, finding.Finding{ID: own.id, Severity: finding.Error, Subject: k.name, Text: own.text, Do: own.do})
		case err != nil:
			return w.ended(ctx, k.name, err)
		}
	}
	if err := w.gate.hold(ctx, w.hash, w.opts.Patience); err != nil {
		return err
	}
	if len(w.report().Findings) == 0 {
		return w.state.remove()
	}
	return nil
}

func (w *walk) report() Report {
	r := Report{KeyIDHash: w.hash, APIServers: w.gate.names(), DryRun: w.opts.DryRun, Resumed: w.state.resumed, Resources: []Resource{}, Findings: w.findings}
	for _, k := range w.kinds {
		res := w.state.of(k.name).total()
		r.Resources = append(r.Resources, res)
		n := len(res.Failures)
		if n == 0 {
			continue
		}
		f := finding.Finding{
			ID: Refused, Severity: finding.Error, Subject: k.name, Objects: n,
			Text: fmt.Sprintf("%s of %s could not be rewritten. The first: %s", text.Count(n, "object"), k.name, res.Failures[0].Reason),
			Do:   "Fix the causes and run this command again. With --state it retries only these objects.",
		}
		for _, failure := range res.Failures[:min(n, 10)] {
			f.Examples = append(f.Examples, path(failure.Namespace, failure.Name))
		}
		r.Findings = append(r.Findings, f)
	}
	return r
}

var errInterrupted = errors.New("interrupted")

// ended adds to err how to resume.
func (w *walk) ended(ctx context.Context, resource string, err error) error {
	if ctx.Err() != nil && !errors.Is(err, errInterrupted) {
		err = errInterrupted
	}
	how := "run this again; objects that are done are not written again"
	if w.opts.State != "" {
		how = "run this again with the same --state to resume"
	}
	return fmt.Errorf("after %d objects of %s: %w: %s", w.state.of(resource).total().Objects, resource, err, how)
}
