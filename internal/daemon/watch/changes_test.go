// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"testing"
	"time"
)

// changes lists every known way in which the content behind a name can change. The
// watched file is etc/config.yaml in the row's directory; "absent" stands for a
// missing main file.
var changes = []struct {
	name   string
	layout func(root dir)
	start  string
	steps  []step
	polled bool // inotify alone does not detect every step
}{
	{
		name:   "vault agent renders",
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) { root.render("etc/config.yaml", "two") }, "two"},
			// A watch on the file itself would no longer work.
			{func(root dir) { root.render("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "written in place",
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) { root.write("etc/config.yaml", "two") }, "two"},
			{func(root dir) { root.write("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "appended to",
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps:  []step{{func(root dir) { root.append("etc/config.yaml", ", two") }, "one, two"}},
	},
	{
		name:   "kubelet publishes",
		layout: func(root dir) { root.publish("etc", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) { root.publish("etc", "two") }, "two"},
			{func(root dir) { root.publish("etc", "three") }, "three"},
		},
	},
	{
		name: "link into another directory, target renamed over",
		layout: func(root dir) {
			root.write("elsewhere/real.yaml", "one")
			root.link("../elsewhere/real.yaml", "etc/config.yaml")
		},
		start: "one",
		steps: []step{
			{func(root dir) { root.render("elsewhere/real.yaml", "two") }, "two"},
			{func(root dir) { root.render("elsewhere/real.yaml", "three") }, "three"},
		},
	},
	{
		name: "link re-pointed",
		layout: func(root dir) {
			root.write("elsewhere/1.yaml", "one")
			root.write("elsewhere/2.yaml", "two")
			root.link(root.at("elsewhere/1.yaml"), "etc/config.yaml")
		},
		start: "one",
		steps: []step{
			{func(root dir) { root.link(root.at("elsewhere/2.yaml"), "etc/config.yaml") }, "two"},
			{func(root dir) { root.write("elsewhere/2.yaml", "three") }, "three"},
		},
	},
	{
		name:   "directory is a link and re-pointed",
		polled: true,
		layout: func(root dir) {
			root.write("v1/config.yaml", "one")
			root.write("v2/config.yaml", "two")
			root.link("v1", "etc")
		},
		start: "one",
		steps: []step{
			{func(root dir) { root.link("v2", "etc") }, "two"},
			{func(root dir) { root.render("v2/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "link to what does not exist yet",
		polled: true,
		layout: func(root dir) { root.link("../run/later/config.yaml", "etc/config.yaml") },
		start:  absent,
		steps:  []step{{func(root dir) { root.write("run/later/config.yaml", "one") }, "one"}},
	},
	{
		name:   "file deleted and re-created",
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) { root.remove("etc/config.yaml") }, absent},
			{func(root dir) { root.write("etc/config.yaml", "two") }, "two"},
		},
	},
	{
		name:   "file deleted and re-created at once",
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{{func(root dir) {
			root.remove("etc/config.yaml")
			root.write("etc/config.yaml", "two")
		}, "two"}},
	},
	{
		name:   "directory removed and re-created",
		polled: true,
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) { root.remove("etc") }, absent},
			{func(root dir) { root.write("etc/config.yaml", "two") }, "two"},
			{func(root dir) { root.render("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "directory removed and re-created at once",
		polled: true,
		layout: func(root dir) { root.write("etc/config.yaml", "one") },
		start:  "one",
		steps: []step{
			{func(root dir) {
				root.remove("etc")
				root.write("etc/config.yaml", "two")
			}, "two"},
			{func(root dir) { root.render("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "directory replaced by rename",
		polled: true,
		layout: func(root dir) {
			root.write("etc/config.yaml", "one")
			root.write("new/config.yaml", "two")
		},
		start: "one",
		steps: []step{
			{func(root dir) {
				root.rename("etc", "old")
				root.rename("new", "etc")
			}, "two"},
			{func(root dir) { root.write("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name: "directory exchanged with another",
		layout: func(root dir) {
			root.write("etc/config.yaml", "one")
			root.write("new/config.yaml", "two")
		},
		start: "one",
		steps: []step{
			{func(root dir) { root.exchange("etc", "new") }, "two"},
			{func(root dir) { root.exchange("etc", "new") }, "one"},
			{func(root dir) { root.write("etc/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "directory further up replaced",
		polled: true,
		layout: func(root dir) {
			root.link("a/b/c", "etc")
			root.write("a/b/c/config.yaml", "one")
			root.write("new/b/c/config.yaml", "two")
		},
		start: "one",
		steps: []step{
			{func(root dir) {
				root.rename("a", "old")
				root.rename("new", "a")
			}, "two"},
			{func(root dir) { root.write("a/b/c/config.yaml", "three") }, "three"},
		},
	},
	{
		name:   "directory absent at start",
		polled: true,
		layout: func(dir) {},
		start:  absent,
		steps: []step{
			{func(root dir) { root.write("etc/config.yaml", "one") }, "one"},
			{func(root dir) { root.render("etc/config.yaml", "two") }, "two"},
		},
	},
	{
		name:   "file absent at start",
		layout: func(root dir) { root.mkdir("etc") },
		start:  absent,
		steps: []step{
			{func(root dir) { root.render("etc/config.yaml", "one") }, "one"},
			{func(root dir) { root.render("etc/config.yaml", "two") }, "two"},
		},
	},
	{
		name:   "links in a circle, put right",
		polled: true,
		layout: func(root dir) { root.link("round", "etc"); root.link("etc", "round") },
		start:  unreadable,
		steps: []step{{func(root dir) {
			root.remove("etc")
			root.write("etc/config.yaml", "one")
		}, "one"}},
	},
	{
		name:   "directory is a file, put right",
		polled: true,
		layout: func(root dir) { root.write("etc", "not a directory") },
		start:  unreadable,
		steps: []step{{func(root dir) {
			root.remove("etc")
			root.write("etc/config.yaml", "one")
		}, "one"}},
	},
	{
		name:   "file is a directory, put right",
		layout: func(root dir) { root.mkdir("etc/config.yaml") },
		start:  unreadable,
		steps: []step{{func(root dir) {
			root.remove("etc/config.yaml")
			root.write("etc/config.yaml", "one")
		}, "one"}},
	},
}

// step is one change of the files and the expected content of the main file.
type step struct {
	do   func(root dir)
	want string
}

// TestChangesNotified uses only inotify to detect each change.
func TestChangesNotified(t *testing.T) {
	testChanges(t, options{Poll: time.Hour}, false)
}

// TestChangesPolled uses only polling.
func TestChangesPolled(t *testing.T) {
	testChanges(t, options{Poll: 20 * time.Millisecond}.WithNotify(exhausted), true)
}

// TestChanges uses both.
func TestChanges(t *testing.T) {
	testChanges(t, options{Poll: 20 * time.Millisecond}, true)
}

func testChanges(t *testing.T, o options, polling bool) {
	for _, tc := range changes {
		if tc.polled && !polling {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := newDir(t)
			tc.layout(root)
			o := o
			o.Path = root.at("etc/config.yaml")
			w := start(t, o)

			if got := held(receive(t, w)); got != tc.start {
				t.Fatalf("at start: got %q, want %q", got, tc.start)
			}
			for i, s := range tc.steps {
				s.do(root)
				t.Logf("step %d: waiting for %q", i+1, s.want)
				await(t, w, s.want)
			}
		})
	}
}
