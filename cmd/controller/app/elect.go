package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// LeaseName is the Lease, in Muslin's namespace, whose holder works.
const LeaseName = "muslin-controller"

// Election is how one of several replicas is chosen.
type Election struct {
	Config    *rest.Config
	Namespace string
	Identity  string // unique among replicas: the pod's name
	Logger    *slog.Logger
}

// Elect runs work whenever this replica holds the Lease, until ctx ends. When
// the Lease is lost the context of work ends, and Elect runs for it again once
// work has returned. It gives the Lease back at the end.
func (e Election) Elect(ctx context.Context, work func(context.Context) error) error {
	client, err := coordination.NewForConfig(e.Config)
	if err != nil {
		return fmt.Errorf("make lease client: %w", err)
	}
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(e.Logger.Handler()))
	for ctx.Err() == nil {
		if err := e.term(ctx, client, work); err != nil {
			return err
		}
	}
	return nil
}

// term waits for the Lease, works while it is held and gives it back, in this
// order: two replicas never work at the same time while clocks run evenly.
func (e Election) term(ctx context.Context, client coordination.LeasesGetter, work func(context.Context) error) error {
	leading := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(e.config(client, leading))
	if err != nil {
		return fmt.Errorf("make leader elector: %w", err)
	}
	// The Lease outlives ctx until work has ended.
	hold, release := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(hold)
	}()
	defer func() {
		release()
		<-ended
	}()
	select {
	case <-ctx.Done():
		return nil
	case lead := <-leading:
		own, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(lead, stop)()
		return work(own)
	}
}

func (e Election) config(client coordination.LeasesGetter, leading chan<- context.Context) leaderelection.LeaderElectionConfig {
	return leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.Namespace, Name: LeaseName},
			Client:     client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		ReleaseOnCancel: true,
		Name:            LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(lead context.Context) {
				e.Logger.Info("holds the lease", "lease", LeaseName, "identity", e.Identity)
				leading <- lead
			},
			OnStoppedLeading: func() { e.Logger.Info("does not hold the lease", "lease", LeaseName, "identity", e.Identity) },
		},
	}
}
