// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// check finds mistakes in the options. It is stricter than kube-apiserver, because
// the name cannot be changed later.
func (o Options) check() error {
	bad := func(option, format string, args ...any) error {
		return &OptionError{Option: option, Reason: fmt.Sprintf(format, args...)}
	}
	if len(o.Resources) == 0 {
		return bad("resources", "is empty; name at least one, such as secrets")
	}
	for _, r := range o.Resources {
		if r == "" {
			return bad("resources", "has an empty name; separate names with commas, such as secrets,configmaps")
		}
	}
	if problems := resourceProblems(o.Resources); len(problems) > 0 {
		return bad("resources", "%s", problems[0].text)
	}
	if !nameForm.MatchString(o.Name) {
		return bad("name", "%q: want letters, digits, dots, dashes and underscores, such as trousseau; it becomes part of every value in etcd", o.Name)
	}
	if !absolute(o.Endpoint) {
		return bad("endpoint", "%q: want unix:// and an absolute path, such as unix:///run/trousseau/kms.sock", o.Endpoint)
	}
	if o.Timeout < 0 {
		return bad("timeout", "%s is not a positive duration such as 3s", o.Timeout)
	}
	if o.Phase != Read && o.Phase != Write {
		return bad("phase", "%q: want read, for every API server first, and then write", o.Phase)
	}
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// absolute accepts less than ParseEndpoint in k8s.io/kms/pkg/util, which takes run in
// unix://run/kms.sock for a host and ignores it.
func absolute(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "unix" || u.Host != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	abstract := strings.HasPrefix(u.Path, "/@") && len(u.Path) > len("/@")
	return abstract || filepath.Clean(u.Path) == u.Path && u.Path != "/" && strings.HasPrefix(u.Path, "/")
}
