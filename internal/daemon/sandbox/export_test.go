// SPDX-License-Identifier: Apache-2.0

package sandbox

// WithResolver returns o changed to take files for the resolver's.
func (o Options) WithResolver(files ...string) Options {
	o.resolver = files
	return o
}
