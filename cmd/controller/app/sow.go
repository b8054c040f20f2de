package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/controller/seed"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// reasonSeedRefused is that of the events of ConfigMap muslin-seed.
const reasonSeedRefused = "SeedRefused"

// sower makes the objects of the ConfigMap muslin-seed that are absent, each
// content once, whether it was made then or was there: what a user deletes later
// stays deleted. It changes no object.
type sower struct {
	objects *Objects
	cluster *kube.Cluster
	log     *slog.Logger

	due      atomic.Bool   // the ConfigMap may be another
	changed  chan struct{} // it is
	pool     bool          // it has a pool, or what may be one
	refused  []string      // what is wrong with it
	reported []string      // of that, what events have been recorded for
}

func (s *sower) look() {
	s.due.Store(true)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// watch asks for a look at each change of the ConfigMap, until ctx ends.
func (s *sower) watch(ctx context.Context) {
	s.objects.keepFollowing(ctx, seedPath(""), seed.Name, func(watched) { s.look() })
}

// sow looks at the ConfigMap if that is due.
func (s *sower) sow(ctx context.Context) error {
	if !s.due.Swap(false) {
		return nil
	}
	err := s.once(ctx)
	if err != nil {
		s.due.Store(true)
	}
	return err
}

func (s *sower) once(ctx context.Context) error {
	m, err := s.objects.seed(ctx)
	if err != nil {
		return err
	}
	objects, refused := seed.Read(m.Data)
	s.pool, s.refused = false, nil
	for _, r := range refused {
		s.pool, s.refused = s.pool || r.Pool, append(s.refused, r.Message)
	}
	var dealt []string
	if text := m.Annotations[seed.Annotation]; text != "" {
		dealt = strings.Split(text, ",")
	}
	before := len(dealt)
	var errs []error
	for _, o := range objects {
		s.pool = s.pool || o.Kind == "IPPool"
		if slices.Contains(dealt, o.Hash) {
			continue
		}
		done, err := s.make(ctx, o)
		if done {
			dealt = append(dealt, o.Hash)
		}
		errs = append(errs, err)
	}
	if len(dealt) > before {
		errs = append(errs, s.objects.annotateSeed(ctx, m.UID, strings.Join(dealt, ",")))
	}
	return errors.Join(append(errs, s.tell(ctx, m.UID))...)
}

// make makes one object unless there is one of its name. done is false for one
// that the server refuses, which is no error: the next look may find it mended.
func (s *sower) make(ctx context.Context, o seed.Object) (done bool, err error) {
	made, err := s.cluster.Create(ctx, o.Kind, o.JSON)
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		s.refused = append(s.refused, o.String()+": "+err.Error())
		return false, nil
	case err != nil:
		return false, fmt.Errorf("seed %s: %w", o, err)
	case made:
		s.log.Info("made an object of the seed", "object", o.String())
	default:
		s.log.Info("an object of the seed exists already and is left as it is", "object", o.String())
	}
	return true, nil
}

// tell records an event for each refusal that is new.
func (s *sower) tell(ctx context.Context, uid types.UID) error {
	var errs []error
	reported := []string{}
	for _, text := range s.refused {
		if !slices.Contains(s.reported, text) {
			s.log.Warn("an object of the seed is refused", "configmap", seed.Name, "problem", text)
			err := s.cluster.Record(ctx, kube.Event{
				Object: model.Ref{Kind: "ConfigMap", Namespace: kube.SystemNamespace, Name: seed.Name},
				UID:    string(uid), Type: kube.EventWarning, Reason: reasonSeedRefused, Message: text,
			})
			if errs = append(errs, err); err != nil {
				continue
			}
		}
		reported = append(reported, text)
	}
	s.reported = reported
	return errors.Join(errs...)
}

func seedPath(name string) string {
	return strings.TrimSuffix("/api/v1/namespaces/"+kube.SystemNamespace+"/configmaps/"+name, "/")
}

// seed gives the ConfigMap, an empty one if there is none.
func (o *Objects) seed(ctx context.Context) (corev1.ConfigMap, error) {
	var m corev1.ConfigMap
	data, err := fetch(ctx, o.client.Get().AbsPath(seedPath(seed.Name)).SetHeader("Accept", jsonType))
	if apierrors.IsNotFound(err) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, fmt.Errorf("get ConfigMap %s: %w", seed.Name, err)
	}
	return m, nil
}

// annotateSeed writes what has been dealt with; another ConfigMap of the name is
// left alone.
func (o *Objects) annotateSeed(ctx context.Context, uid types.UID, dealt string) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": map[string]string{seed.Annotation: dealt}}})
	if err != nil {
		return fmt.Errorf("encode the annotation of ConfigMap %s: %w", seed.Name, err)
	}
	_, err = fetch(ctx, o.client.Verb(http.MethodPatch).AbsPath(seedPath(seed.Name)).SetHeader("Content-Type", string(types.MergePatchType)).SetHeader("Accept", jsonMeta).Body(body))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("annotate ConfigMap %s: %w", seed.Name, err)
	}
	return nil
}
