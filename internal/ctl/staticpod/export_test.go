// SPDX-License-Identifier: Apache-2.0

package staticpod

// BeforeEachStep lets a test interrupt a keeper before each change on the disk.
func (k *Keeper) BeforeEachStep(f func(step string)) { k.disk.before = f }
