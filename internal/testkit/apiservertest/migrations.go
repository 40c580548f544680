// SPDX-License-Identifier: Apache-2.0

package apiservertest

import (
	"encoding/json"
	"net/http"
	"strconv"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const migrationsPath = "/apis/storagemigration.k8s.io/v1/storageversionmigrations"

// migrate creates a StorageVersionMigration and executes it at once, as
// kube-controller-manager does: up to the first refusal (runMigration in
// pkg/controller/storageversionmigrator of k8s.io/kubernetes).
func (s *Server) migrate(w http.ResponseWriter, r *http.Request) {
	m := new(migrationv1.StorageVersionMigration)
	if err := json.NewDecoder(r.Body).Decode(m); err != nil {
		refuse(w, metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: err.Error()})
		return
	}
	s.mu.Lock()
	m.Name = m.GenerateName + strconv.Itoa(len(s.migrations))
	s.migrations[m.Name] = m
	idle := s.idle
	s.mu.Unlock()
	if !idle {
		outcome, message := migrationv1.MigrationSucceeded, "Migration completed"
		for _, one := range s.Secrets() {
			if _, refusal := s.update(r.Context(), one.Name, false); refusal != nil {
				outcome, message = migrationv1.MigrationFailed, "migration encountered unhandled error: "+refusal.Message
				break
			}
		}
		meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: string(outcome), Status: metav1.ConditionTrue, Message: message})
	}
	answer(w, m)
}

// migration answers with a migration, and forgets a deleted one.
func (s *Server) migration(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.migrations[r.PathValue("name")]
	if !known {
		refuse(w, metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "not found"})
		return
	}
	if r.Method == http.MethodDelete {
		delete(s.migrations, m.Name)
	}
	answer(w, m)
}
