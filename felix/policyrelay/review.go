package policyrelay

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authentication "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
)

const (
	// Audience is what an agent's token for a relay is for. A token for the API server
	// is none: whoever got hold of one here could act as the agent there.
	Audience = "muslin-relay"

	agentUser = "system:serviceaccount:muslin-system:muslin-agent"
	nodeClaim = "authentication.kubernetes.io/node-name" // KEP-4193
	reviewFor = 10 * time.Second
	knownFor  = time.Minute // how long a token is not reviewed again
	mostKnown = 10_000
)

// Reviewer has the API server review tokens: it gives the node of the pod that a token
// is bound to, if that is an agent's.
func Reviewer(cfg *rest.Config) (func(ctx context.Context, token string) (model.NodeName, error), error) {
	own := rest.CopyConfig(cfg)
	own.QPS, own.Burst = 200, 1000 // all agents of a cluster may come at once
	client, err := authenticationclient.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("make client of token reviews: %w", err)
	}
	known := cache.NewLRUExpireCache(mostKnown)
	return func(ctx context.Context, token string) (model.NodeName, error) {
		key := sha256.Sum256([]byte(token))
		if node, ok := known.Get(key); ok {
			return node.(model.NodeName), nil
		}
		ctx, cancel := context.WithTimeout(ctx, reviewFor)
		defer cancel()
		review := &authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: token, Audiences: []string{Audience}}}
		out, err := client.TokenReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return "", fmt.Errorf("review a token: %w", err)
		}
		node, err := nodeOf(&out.Status)
		if err == nil {
			known.Add(key, node, knownFor)
		}
		return node, err
	}, nil
}

// nodeOf gives the node that a reviewed token is bound to.
func nodeOf(s *authentication.TokenReviewStatus) (model.NodeName, error) {
	switch node := s.User.Extra[nodeClaim]; {
	case !s.Authenticated || !slices.Contains(s.Audiences, Audience):
		return "", status.Error(codes.Unauthenticated, "the API server does not know the token, or it is not for "+Audience)
	case s.User.Username != agentUser:
		return "", status.Errorf(codes.PermissionDenied, "%s is no agent", s.User.Username)
	case len(node) != 1 || node[0] == "":
		return "", status.Error(codes.PermissionDenied, "the token is bound to no node: it has to be of a pod, and of Kubernetes 1.32 or later")
	default:
		return model.NodeName(node[0]), nil
	}
}
