package policyrelay

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/task"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	namespace     = "muslin-system"
	configMapName = "muslin-relay"
	serverName    = "muslin-relay" // in the certificates
	mostReplicas  = 8              // in the ConfigMap; of more the oldest go
	lookAgain     = time.Minute
)

// Replica is a relay as agents find it, a value of the ConfigMap.
type Replica struct {
	Address     string    `json:"address"`     // host:port
	Certificate string    `json:"certificate"` // PEM; no other one is accepted
	Since       time.Time `json:"since"`
}

// Directory is the ConfigMap muslin-relay, in which replicas are found.
type Directory struct {
	maps corev1client.ConfigMapInterface
	log  *slog.Logger
}

// NewDirectory makes one for the server that cfg names.
func NewDirectory(cfg *rest.Config, logger *slog.Logger) (*Directory, error) {
	client, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client of ConfigMaps: %w", err)
	}
	return &Directory{maps: client.ConfigMaps(namespace), log: logger}, nil
}

// Replicas gives those that are found, by name. One that cannot be read is left out.
func (d *Directory) Replicas(ctx context.Context) (map[string]Replica, error) {
	m, err := d.maps.Get(ctx, configMapName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get ConfigMap %s/%s: %w", namespace, configMapName, err)
	}
	out := map[string]Replica{}
	for name, text := range m.Data {
		var r Replica
		if err := json.Unmarshal([]byte(text), &r); err == nil && r.Address != "" {
			out[name] = r
		}
	}
	return out, nil
}

// Publish keeps a replica in the ConfigMap until ctx ends, and takes it out then.
func (d *Directory) Publish(ctx context.Context, name string, r Replica) error {
	failing := false
	task.Loop(ctx, func(ctx context.Context) task.Next {
		err := d.keep(ctx, name, r)
		if failed := err != nil; failed != failing && ctx.Err() == nil {
			failing = failed
			if failed {
				d.log.Warn("agents cannot find this policy relay", "error", err)
			} else {
				d.log.Info("agents can find this policy relay", "address", r.Address)
			}
		}
		if err != nil {
			return task.Next{After: 2 * time.Second}
		}
		return task.Next{After: lookAgain}
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.patch(ctx, map[string]any{name: nil}); err != nil {
		d.log.Debug("agents find this policy relay until they try it", "error", err)
	}
	return nil
}

// keep has the ConfigMap name a replica, and of others the newest.
func (d *Directory) keep(ctx context.Context, name string, r Replica) error {
	have, err := d.Replicas(ctx)
	if err != nil {
		return err
	}
	known := have[name]
	delete(have, name)
	r.Since = since(r.Since, have)
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode replica: %w", err)
	}
	change := map[string]any{}
	if known.Address != r.Address || known.Certificate != r.Certificate {
		change[name] = string(text)
	}
	var others []string
	for other := range have {
		others = append(others, other)
	}
	slices.SortFunc(others, func(a, b string) int { return cmp.Or(have[b].Since.Compare(have[a].Since), cmp.Compare(a, b)) })
	for i, other := range others {
		if i >= mostReplicas-1 {
			change[other] = nil
		}
	}
	if len(change) == 0 {
		return nil
	}
	return d.patch(ctx, change)
}

// since is when a replica began, after all that were there before it: one that ended
// without a word, and whose clock was ahead, is not newer than it for that.
func since(own time.Time, others map[string]Replica) time.Time {
	for _, other := range others {
		if !own.After(other.Since) {
			own = other.Since.Add(time.Second)
		}
	}
	return own
}

func (d *Directory) patch(ctx context.Context, data map[string]any) error {
	body, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	var m *corev1.ConfigMap
	if m, err = d.maps.Patch(ctx, configMapName, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("patch ConfigMap %s/%s: %w", namespace, configMapName, err)
	}
	d.log.Debug("ConfigMap of policy relays written", "version", m.ResourceVersion)
	return nil
}

// NewCertificate makes a certificate for one process, and its PEM for a Replica. It is
// good for ten years: a process does not last as long.
func NewCertificate() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make certificate: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(text), nil
}

// trust accepts the certificate of a replica, and no other.
func (r Replica) trust() (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(r.Certificate)) {
		return nil, fmt.Errorf("the certificate of relay %s cannot be read", r.Address)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: serverName}, nil
}
