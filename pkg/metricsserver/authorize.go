package metricsserver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
)

const (
	rememberFor  = time.Minute
	rememberMost = 1000 // tokens, so that guessing costs no memory
	askFor       = 5 * time.Second
)

// gate lets pass whom the API server lets get /metrics.
type gate struct {
	tokens authenticationclient.TokenReviewInterface
	access authorizationclient.SubjectAccessReviewInterface
	deaf   complaint // the API server cannot be asked

	mu    sync.Mutex
	known map[[sha256.Size]byte]verdict // by the token's digest: no token is kept
}

type verdict struct {
	code  int // an HTTP status
	until time.Time
}

func newGate(cfg *rest.Config, logger *slog.Logger) (*gate, error) {
	tokens, err := authenticationclient.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client of token reviews: %w", err)
	}
	access, err := authorizationclient.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client of access reviews: %w", err)
	}
	return &gate{tokens: tokens.TokenReviews(), access: access.SubjectAccessReviews(), deaf: complaint{log: logger, what: "token review"}, known: map[[sha256.Size]byte]verdict{}}, nil
}

// guard answers 401 to whoever shows no token that the API server knows, 403 to
// whom it does not let get /metrics, and 503 when it cannot be asked.
func (g *gate) guard(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
		token = strings.TrimSpace(token)
		code := http.StatusUnauthorized
		if ok && strings.EqualFold(scheme, "Bearer") && token != "" {
			code = g.evaluate(r.Context(), token, time.Now())
		}
		switch code {
		case http.StatusOK:
			inner.ServeHTTP(w, r)
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a bearer token of the cluster is needed", code)
		case http.StatusForbidden:
			http.Error(w, "needs verb get of the non-resource URL /metrics", code)
		default:
			http.Error(w, "the API server cannot be asked about the token", code)
		}
	})
}

// evaluate remembers what the API server said, but not that it could not be asked.
func (g *gate) evaluate(ctx context.Context, token string, now time.Time) int {
	digest := sha256.Sum256([]byte(token))
	g.mu.Lock()
	v, ok := g.known[digest]
	g.mu.Unlock()
	if ok && now.Before(v.until) {
		return v.code
	}
	code, err := g.ask(ctx, token)
	if ctx.Err() == nil {
		g.deaf.of(err)
	}
	if err != nil {
		return http.StatusServiceUnavailable
	}
	g.remember(digest, code, now)
	return code
}

func (g *gate) remember(digest [sha256.Size]byte, code int, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) >= rememberMost {
		clear(g.known)
	}
	g.known[digest] = verdict{code, now.Add(rememberFor)}
}

// ask has the API server review the token.
func (g *gate) ask(ctx context.Context, token string) (code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	who, err := g.tokens.Create(ctx, &authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("review a token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := who.Status.User
	spec := authorization.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: map[string]authorization.ExtraValue{},
		NonResourceAttributes: &authorization.NonResourceAttributes{Path: Path, Verb: "get"},
	}
	for k, v := range user.Extra {
		spec.Extra[k] = authorization.ExtraValue(v)
	}
	may, err := g.access.Create(ctx, &authorization.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("review the access of %s: %w", user.Username, err)
	}
	if !may.Status.Allowed {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}
