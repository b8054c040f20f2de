package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// certValidity is how long the lab's certificates live.
const certValidity = 10 * 365 * 24 * time.Hour

// authority is the lab's own certificate authority.
type authority struct {
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
}

// identity is what a certificate says of its holder.
type identity struct {
	name      string
	groups    []string
	addresses []netip.Addr
	hosts     []string
}

// keyPair is a certificate and its key, PEM encoded.
type keyPair struct{ cert, key []byte }

func newAuthority(name string) (*authority, error) {
	template := certificate(identity{name: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key, der, err := sign(template, nil)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	return &authority{cert: cert, certPEM: encodePEM("CERTIFICATE", der), key: key}, nil
}

// issue makes a certificate for servers and clients alike.
func (a *authority) issue(who identity) (keyPair, error) {
	template := certificate(who)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, der, err := sign(template, a)
	if err != nil {
		return keyPair{}, fmt.Errorf("issue certificate for %s: %w", who.name, err)
	}
	keyPEM, err := encodeKey(key)
	return keyPair{cert: encodePEM("CERTIFICATE", der), key: keyPEM}, err
}

// sign makes a key, and its certificate by an authority, or by itself without one.
// x509 draws the serial number.
func sign(template *x509.Certificate, by *authority) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if by == nil {
		by = &authority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	return key, der, err
}

func certificate(who identity) *x509.Certificate {
	cert := &x509.Certificate{
		Subject:   pkix.Name{CommonName: who.name, Organization: who.groups},
		DNSNames:  who.hosts,
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().Add(certValidity),
	}
	for _, address := range who.addresses {
		if address.IsValid() {
			cert.IPAddresses = append(cert.IPAddresses, net.IP(address.AsSlice()))
		}
	}
	return cert
}

// serviceAccountKeys makes the pair that signs and verifies service account
// tokens.
func serviceAccountKeys() (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return keyPair{}, fmt.Errorf("make service account key: %w", err)
	}
	private, err := encodeKey(key)
	return keyPair{cert: encodePEM("PUBLIC KEY", public), key: private}, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return encodePEM("EC PRIVATE KEY", der), err
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writePair stores a pair as NAME.crt and NAME.key in dir.
func writePair(dir, name string, pair keyPair) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), pair.cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), pair.key, 0o600)
}
