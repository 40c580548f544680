// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	migrationv1 "k8s.io/api/storagemigration/v1"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// migrations is the resource that kube-controller-manager works on.
var migrations = migrationv1.SchemeGroupVersion.WithResource("storageversionmigrations")

// startsWithin is how long kube-controller-manager may take to begin. A new leader needs
// less than 20 s.
const startsWithin = 30 * time.Second

// migrate has kube-controller-manager rewrite a resource, and reports whether it has. If
// it has not, and there is another way, the reason is in p.
//
// It stops at the first object that is refused, ignores conflicts, and skips what the
// API server that it uses takes for current (runMigration in
// pkg/controller/storageversionmigrator of k8s.io/kubernetes v1.37.2). So it runs only
// behind the gate, and etcd is read afterwards.
func (w *walk) migrate(ctx context.Context, k kind, p *position) (bool, error) {
	p.Migration, p.Note = "", ""
	if w.opts.Via == Walk || w.opts.Via == Auto && !w.cluster.migrates {
		return false, nil
	}
	if w.opts.Stale != nil {
		// A migration patches every object, and stays in the cluster.
		if n, err := w.count(ctx, k, p); n == 0 || err != nil {
			return false, err
		}
	}
	if w.opts.DryRun {
		p.Note = "kube-controller-manager would migrate all objects, by a StorageVersionMigration; so many would be patched without it"
		return false, nil
	}
	name, why, err := "", "the cluster does not serve storagemigration.k8s.io/v1, which is new in Kubernetes 1.37", error(nil)
	if w.cluster.migrates {
		name, why, err = w.migration(ctx, k)
	}
	switch {
	case err != nil:
		return false, err
	case why == "":
		p.Migration = name
		if w.opts.Stale == nil {
			w.findings = append(w.findings, finding.Finding{
				ID: NotProven, Severity: finding.Warning, Subject: k.name,
				Text: fmt.Sprintf("kube-controller-manager says that %s are migrated. It says so too of objects that an API server skipped.", k.name),
				Do:   "Look into etcd: give --endpoints, or run trousseauctl audit.",
			})
		}
		return true, nil
	case w.opts.Via == Auto:
		p.Note = why
		return false, nil
	}
	return false, problem{MigrationFailed, why, "Fix the cause, or run this with --via walk, which names every object that is refused."}
}

// migration creates a StorageVersionMigration and waits for its end. Why is empty if it
// has succeeded.
func (w *walk) migration(ctx context.Context, k kind) (name, why string, err error) {
	m := migrationv1.StorageVersionMigration{
		TypeMeta:   metav1.TypeMeta{APIVersion: migrationv1.SchemeGroupVersion.String(), Kind: "StorageVersionMigration"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "trousseau-" + k.gvr.Resource + "-"},
		Spec:       migrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Group: k.gvr.Group, Resource: k.gvr.Resource}},
	}
	if why, err := w.cluster.migration(ctx, "POST", "", &m); why != "" || err != nil {
		return "", why, err
	}
	began, within := time.Now(), min(startsWithin, w.opts.Patience)
	for again := time.NewTicker(time.Second); ; {
		succeeded := meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationSucceeded))
		failed := meta.FindStatusCondition(m.Status.Conditions, string(migrationv1.MigrationFailed))
		switch {
		case succeeded:
			return m.Name, "", nil
		case failed != nil && failed.Status == metav1.ConditionTrue:
			return "", fmt.Sprintf("kube-controller-manager's migration %s has failed: %s", m.Name, text.Printable(failed.Message)), nil
		case len(m.Status.Conditions) == 0 && time.Since(began) > within:
			// Otherwise it would begin whenever a controller is back.
			_, err := w.cluster.migration(ctx, "DELETE", m.Name, &migrationv1.StorageVersionMigration{})
			return "", fmt.Sprintf("kube-controller-manager has not begun the migration %s within %s: check that it runs, with its storage version migrator", m.Name, within), err
		}
		select {
		case <-ctx.Done():
			return "", "", fmt.Errorf("%w, but the migration %s goes on in kube-controller-manager", errInterrupted, m.Name)
		case <-again.C:
		}
		if time.Since(w.held) > holdEvery {
			if err := w.check(ctx); err != nil {
				return "", "", err
			}
		}
		if why, err := w.cluster.migration(ctx, "GET", m.Name, &m); why != "" || err != nil {
			return "", why, err
		}
	}
}

// migration makes a request about m, which becomes the answer. Why is what kube-apiserver
// says against it.
func (c *cluster) migration(ctx context.Context, verb, name string, m *migrationv1.StorageVersionMigration) (why string, err error) {
	atOnce := func(context.Context) error { return nil }
	err = c.persist(ctx, atOnce, func(ctx context.Context) error {
		request := c.pages.Verb(verb).AbsPath("/apis", migrations.Group, migrations.Version, migrations.Resource, name).SetHeader("Accept", "application/json")
		if verb == "POST" {
			body, err := json.Marshal(m)
			if err != nil {
				return err
			}
			request.SetHeader("Content-Type", "application/json").Body(body)
		}
		answer, err := request.Do(ctx).Raw()
		if err != nil {
			return err
		}
		*m = migrationv1.StorageVersionMigration{}
		return json.Unmarshal(answer, m)
	})
	if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown && !unanswered(err) && !apierrors.IsUnauthorized(err) {
		return fmt.Sprintf("%s of a StorageVersionMigration: %s", verb, reason(err)), nil
	}
	return "", err
}
