// SPDX-License-Identifier: Apache-2.0

// Package rotatekey rotates the transit key of a cluster, and sees the rotation through:
// until every node and API server has the new version, everything is re-encrypted under
// it, and the older versions may be retired.
//
// It keeps no state. Vault says which version is the newest, the nodes and the API
// servers which one they have, and etcd what is under the older ones. So a run that was
// interrupted is resumed by all steps but the first.
package rotatekey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// Options say which key to rotate, and how the other steps are made: each by the code of
// the command that an operator would run.
type Options struct {
	Vault *vaultadmin.Client
	// Namespace is that of Vault, Mount the path of the transit engine in it.
	Namespace, Mount, Key string
	// Plugins say how to ask the plugins of all API servers.
	Plugins fleet.Options
	// Resume leaves out the rotation: an earlier run has made it.
	Resume bool
	// DryRun ends after the checks, before the rotation.
	DryRun bool
	// Raise raises min_decryption_version as far as the audit allows.
	Raise bool

	// Await waits until all plugins and API servers have the key_id with this hash.
	Await func(ctx context.Context, keyIDHash string) error
	// Reencrypt rewrites what is not under that key_id. Objects that are left are
	// findings.
	Reencrypt func(ctx context.Context, keyIDHash string) ([]finding.Finding, error)
	// Audit reads all of etcd.
	Audit func(ctx context.Context) (audit.Report, []finding.Finding, error)
	// Commands are what an operator would run instead.
	Commands Commands
	// Begins is called before each step; may be nil.
	Begins func(Step)
}

// Commands are the commands of the steps that are not in Vault.
type Commands struct{ Await, Reencrypt, Audit string }

// Report says how far a run came.
type Report struct {
	// Key is the path of the key in Vault.
	Key string `json:"key"`
	// Version is the newest version of the key, and KeyIDHash the hash of its key_id.
	Version   int    `json:"version"`
	KeyIDHash string `json:"keyIDHash"`
	// MinDecryptionVersion is that of the key.
	MinDecryptionVersion int               `json:"minDecryptionVersion"`
	Steps                []Step            `json:"steps"`
	Findings             []finding.Finding `json:"-"`
}

// Step is one step of a rotation.
type Step struct {
	Name string `json:"name"`
	// Command does the same by hand.
	Command string `json:"command"`
	Result  Result `json:"result"`
	// Text says what was done, or why not.
	Text string `json:"text,omitempty"`
}

// Result is what became of a step.
type Result string

// The results.
const (
	Done    Result = "done"
	Skipped Result = "skipped"
	Failed  Result = "failed"
	// Planned is a step that was not begun.
	Planned Result = "planned"
)

// NotRaised is the ID of the only finding of this package: min_decryption_version is not
// raised, because it is unknown how far it may be.
const NotRaised = "not-raised"

// The steps, by their index in Report.Steps.
const (
	rotating = iota
	awaiting
	reencrypting
	auditing
	raising
)

// Run rotates the key. The report is valid also with an error, which says how to resume.
func Run(ctx context.Context, o Options) (Report, error) {
	path := o.Mount + "/keys/" + o.Key
	r := Report{Key: path, Steps: []Step{
		{Name: "rotate", Command: "vault write -f " + path + "/rotate"},
		{Name: "wait", Command: o.Commands.Await},
		{Name: "reencrypt", Command: o.Commands.Reencrypt},
		{Name: "audit", Command: o.Commands.Audit},
		{Name: "raise", Command: "vault write " + path + "/config min_decryption_version=N"},
	}}
	for i := range r.Steps {
		r.Steps[i].Result = Planned
	}
	w := &work{Options: o, report: &r, path: path, engine: o.Mount}
	if o.Namespace != "" {
		w.engine = o.Namespace + "/" + o.Mount
	}
	err := w.run(ctx)
	return r, err
}

type work struct {
	Options
	report *Report
	path   string
	// engine is the path of the engine in a key_id. Blind says that the nodes may not
	// read the key, so that their key_ids have no creation times.
	engine string
	blind  bool
}

// hash returns the hash of the key_id of a version, as the nodes make it.
func (w *work) hash(k key, version int, blind bool) string {
	id := keyid.ID{Engine: w.engine, Key: w.Key, Version: version}
	if !blind {
		id.Created = k.created[version]
	}
	return keyid.Hash(id.String())
}

func (w *work) run(ctx context.Context) error {
	if err := w.check(ctx); err != nil || w.DryRun {
		return err
	}
	var found audit.Report
	steps := []func() (string, error){
		rotating: func() (string, error) { return w.rotate(ctx) },
		awaiting: func() (string, error) {
			return "every plugin and API server has the new key_id", w.Await(ctx, w.report.KeyIDHash)
		},
		reencrypting: func() (string, error) {
			findings, err := w.Reencrypt(ctx, w.report.KeyIDHash)
			w.report.Findings = append(w.report.Findings, findings...)
			if finding.Problem(findings) {
				return "not everything: see the findings", err
			}
			return "nothing is left", err
		},
		auditing: func() (string, error) {
			report, findings, err := w.Audit(ctx)
			found = report
			w.report.Findings = append(w.report.Findings, findings...)
			return text.Count(report.Objects, "object") + " read", err
		},
		raising: func() (string, error) { return w.raise(ctx, found) },
	}
	for i, do := range steps {
		step := &w.report.Steps[i]
		if i == rotating && w.Resume || i == raising && !w.Raise {
			step.Result = Skipped
			step.Text = map[bool]string{true: "version " + strconv.Itoa(w.report.Version) + " is the newest", false: "not asked for"}[i == rotating]
			continue
		}
		if w.Begins != nil {
			w.Begins(*step)
		}
		said, err := do()
		if err != nil {
			step.Result = Failed
			return w.failed(i, err)
		}
		if step.Text = said; step.Result == Planned {
			step.Result = Done
		}
	}
	return nil
}

// failed adds to an error how to go on.
func (w *work) failed(step int, err error) error {
	if step == rotating && vaultadmin.Answered(err) {
		return fmt.Errorf("rotating the key: %w: nothing was changed", err)
	}
	how := "run this again with --resume"
	if step == rotating {
		how += fmt.Sprintf(" if `vault read %s` has latest_version %d, else without", w.path, w.report.Version+1)
	}
	return fmt.Errorf("step %s: %w: %s", w.report.Steps[step].Name, err, how)
}

// check refuses to begin unless the key is the one that the nodes use, and all of them and
// all API servers are well.
func (w *work) check(ctx context.Context) error {
	k, err := w.read(ctx)
	if err != nil {
		return err
	}
	survey := fleet.Survey(ctx, w.Plugins)
	if err := ctx.Err(); err != nil {
		return errors.New("interrupted; nothing was changed")
	}
	has := 0
	for version := range k.created {
		for _, blind := range []bool{false, true} {
			if version > has && slices.ContainsFunc(survey.KeyIDs, func(used fleet.KeyID) bool { return used.Hash == w.hash(k, version, blind) }) {
				has, w.blind = version, blind
			}
		}
	}
	switch {
	case survey.Err != nil:
		return survey.Err
	case has == 0 && len(survey.KeyIDs) == 0:
		return errors.New("no node says which key it uses: run trousseauctl status")
	case has == 0:
		return fmt.Errorf("the nodes do not use the key %s of this Vault (key_id %s of key %s): check --transit-mount, --key, VAULT_ADDR and VAULT_NAMESPACE",
			w.engine+"/"+w.Key, survey.KeyIDs[0].Hash, survey.KeyIDs[0].Name)
	case w.Resume:
		w.seen(k)
		return nil
	case has < k.latest:
		return fmt.Errorf("the nodes have version %d of the key, and Vault has %d: an earlier rotation is not complete; run this with --resume", has, k.latest)
	}
	w.seen(k)
	if err := w.Await(ctx, w.report.KeyIDHash); err != nil {
		return fmt.Errorf("nothing was changed, because the rotation could not be completed: %w", err)
	}
	return nil
}

// seen sets the newest version.
func (w *work) seen(k key) {
	w.report.Version, w.report.MinDecryptionVersion = k.latest, k.least
	w.report.KeyIDHash = w.hash(k, k.latest, w.blind)
}

func (w *work) rotate(ctx context.Context) (string, error) {
	before := w.report.Version
	if _, err := w.Vault.Write(ctx, w.path+"/rotate", nil); err != nil {
		return "", err
	}
	k, err := w.read(ctx)
	if err != nil {
		return "", err
	}
	w.seen(k)
	if k.latest <= before {
		return "", fmt.Errorf("vault still has version %d: read from another node than it was written to?", k.latest)
	}
	return fmt.Sprintf("version %d, was %d", k.latest, before), nil
}

// raise raises min_decryption_version to what the audit allows, never lowers it, and does
// nothing if that is unknown.
func (w *work) raise(ctx context.Context, found audit.Report) (string, error) {
	step := &w.report.Steps[raising]
	may, why := 0, "no object in etcd is under this key"
	for _, t := range found.TransitKeys {
		if t.Engine == w.engine && t.Key == w.Key {
			may, why = t.MayBecome, t.Unknown
		}
	}
	k, err := w.read(ctx)
	switch {
	case err != nil:
		return "", err
	case may == 0 || why != "":
		step.Result = Skipped
		w.report.Findings = append(w.report.Findings, finding.Finding{
			ID: NotRaised, Severity: finding.Error, Subject: w.path,
			Text: fmt.Sprintf("min_decryption_version stays %d: how far it may be raised is unknown, because %s.", k.least, why),
			Do:   "See the audit, and run this again with --resume.",
		})
		return "unknown how far: " + why, nil
	case may <= k.least:
		step.Result = Skipped
		return fmt.Sprintf("min_decryption_version is %d, and may be no higher", k.least), nil
	}
	step.Command = fmt.Sprintf("vault write %s/config min_decryption_version=%d", w.path, may)
	if _, err := w.Vault.Write(ctx, w.path+"/config", map[string]any{"min_decryption_version": may}); err != nil {
		return "", err
	}
	w.report.MinDecryptionVersion = may
	return fmt.Sprintf("min_decryption_version is %d, was %d", may, k.least), nil
}

// key is what Vault says about the key.
type key struct {
	latest, least int
	// created is when each version was made, in Unix seconds.
	created map[int]int64
}

func (w *work) read(ctx context.Context) (key, error) {
	data, err := w.Vault.Read(ctx, w.path)
	if err != nil {
		return key{}, err
	}
	k := key{latest: int(number(data["latest_version"])), least: int(number(data["min_decryption_version"])), created: make(map[int]int64)}
	versions, _ := data["keys"].(map[string]any)
	for v, created := range versions {
		if n, err := strconv.Atoi(v); err == nil {
			k.created[n] = number(created)
		}
	}
	if k.latest < 1 || k.created[k.latest] == 0 {
		return key{}, fmt.Errorf("there is no key %s at %s that Trousseau can use: check --transit-mount and --key", w.path, w.Vault.Address())
	}
	return k, nil
}

// number reads a number of Vault's JSON; 0 for anything else.
func number(v any) int64 {
	n, _ := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	return n
}
