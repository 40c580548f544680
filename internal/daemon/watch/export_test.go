// SPDX-License-Identifier: Apache-2.0

package watch

import "github.com/fsnotify/fsnotify"

// WithNotify returns o changed to take its inotify instance from open.
func (o Options[T]) WithNotify(open func() (*fsnotify.Watcher, error)) Options[T] {
	o.notify = open
	return o
}
