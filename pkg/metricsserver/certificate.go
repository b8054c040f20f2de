package metricsserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"sync"
	"time"
)

// selfSigned makes a certificate that says no more than that the connection is
// not read by others. It is good for ten years: a process does not last as long.
func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "muslin-metrics"}, DNSNames: []string{"muslin-metrics"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0), // clocks may differ
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// files is a certificate and its key on disk. They may be replaced at any time,
// one after the other: until they belong together again the last pair is used.
type files struct {
	cert, key string

	mu   sync.Mutex
	read [2]stamp
	last *tls.Certificate

	broken complaint
}

// stamp tells a file from one that has replaced it.
type stamp struct {
	changed time.Time
	size    int64
}

// get gives the pair as it is now, or as it last was; an error when there never
// was one.
func (f *files) get() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh()
	f.broken.of(err)
	if f.last == nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return f.last, nil
}

// refresh reads the files when they were replaced.
func (f *files) refresh() error {
	var now [2]stamp
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		now[i] = stamp{info.ModTime(), info.Size()}
	}
	if f.last != nil && now == f.read {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return err
	}
	f.last, f.read = &pair, now
	return nil
}
