package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// The exit codes of muslinctl.
const (
	ExitOK         = 0
	ExitFailed     = 1 // the server refused, or something went wrong on the way
	ExitUsage      = 2 // the command line or the input cannot be understood
	ExitPartly     = 3 // some objects were written and others were not
	ExitFindings   = 4 // check, explain or ipam check found something wrong
	ExitConnection = 5 // no kubeconfig, or no API server behind it
	ExitForbidden  = 6 // not logged in, or not allowed
	ExitConflict   = 7 // the object has changed since it was read
)

// ConfigError means that there is no usable kubeconfig.
type ConfigError struct {
	Path string
	Err  error
}

func (e *ConfigError) Error() string {
	if e.Path == "" {
		return e.Err.Error()
	}
	return e.Path + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// RequestError is a request that failed.
type RequestError struct {
	Verb string
	Kind *kind.Kind
	Name string // may be empty
	Err  error
}

func (e *RequestError) Error() string {
	object := e.Kind.Plural
	if e.Name != "" {
		object = e.Kind.Name + " " + e.Name
	}
	return e.Verb + " " + object + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *RequestError) Unwrap() error { return e.Err }

func wrap(verb string, k *kind.Kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return &RequestError{verb, k, name, err}
}

// answered prefers what the server said to what the client made of it.
func answered(body []byte, err error) error {
	var s metav1.Status
	if len(body) > 0 && json.Unmarshal(body, &s) == nil && s.Kind == "Status" && s.Message != "" {
		return &apierrors.StatusError{ErrStatus: s}
	}
	return err
}

// UsageError is a command line or an input that cannot be understood.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Coder is an error that says with which code to exit.
type Coder interface{ ExitCode() int }

// Explain gives the lines to print for an error, one for each that is joined in
// it, and the exit code.
func Explain(err error) ([]string, int) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
		var lines []string
		code := 0
		for _, e := range joined.Unwrap() {
			l, c := Explain(e)
			lines = append(lines, l...)
			if code == 0 {
				code = c
			}
		}
		var own Coder
		if errors.As(err, &own) {
			code = own.ExitCode()
		}
		return lines, code
	}
	text, code := line(err)
	return []string{oneLine(text)}, code
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func line(err error) (string, int) {
	var (
		coder   Coder
		usage   *UsageError
		config  *ConfigError
		unknown *kind.UnknownError
		field   *kind.FieldError
	)
	switch {
	case errors.As(err, &coder):
		return err.Error(), coder.ExitCode()
	case errors.As(err, &usage), errors.As(err, &unknown), errors.As(err, &field):
		return err.Error(), ExitUsage
	case errors.As(err, &config):
		return configLine(config), ExitConnection
	case apierrors.IsForbidden(err):
		return err.Error() + "; ask for a role that allows it (kubectl auth can-i --list shows yours)", ExitForbidden
	case apierrors.IsUnauthorized(err):
		return err.Error() + ": not logged in; renew the credentials of the kubeconfig's user", ExitForbidden
	case apierrors.IsConflict(err):
		return err.Error() + "; get it again, make the change on the new version, or leave metadata.resourceVersion out", ExitConflict
	case apierrors.IsAlreadyExists(err):
		return err.Error() + "; apply changes it, replace overwrites it", ExitFailed
	case apierrors.IsNotFound(err):
		return notFound(err), ExitFailed
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return err.Error(), ExitUsage
	}
	if text, ok := network(err); ok {
		return text, ExitConnection
	}
	return err.Error(), ExitFailed
}

func configLine(e *ConfigError) string {
	if clientcmd.IsEmptyConfig(e.Err) {
		return "no kubeconfig: set KUBECONFIG, or give --kubeconfig FILE"
	}
	if errors.Is(e.Err, os.ErrNotExist) {
		return e.Path + ": no such file; set KUBECONFIG, or give --kubeconfig FILE"
	}
	return e.Error() + "; check KUBECONFIG, --kubeconfig and --context"
}

// notFound tells a missing object from a missing CRD.
func notFound(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if d := status.Status().Details; d == nil || d.Name == "" {
			return err.Error() + "; is Muslin installed? (kubectl apply -k manifests/)"
		}
	}
	return err.Error()
}

// network explains errors below HTTP.
func network(err error) (string, bool) {
	var (
		dial *net.OpError
		dns  *net.DNSError
		cert *x509.UnknownAuthorityError
		u    *url.Error
	)
	host := "the API server"
	if errors.As(err, &u) {
		if at, bad := url.Parse(u.URL); bad == nil {
			host = at.Host
		}
	}
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("no connection to %s: the name cannot be resolved; check the server in the kubeconfig, or --context", host), true
	case errors.As(err, &cert):
		return fmt.Sprintf("no connection to %s: its certificate is signed by somebody the kubeconfig does not know; check certificate-authority", host), true
	case errors.As(err, &dial):
		return fmt.Sprintf("no connection to %s: %v; check the server in the kubeconfig, or --context", host, dial.Err), true
	case errors.Is(err, context.DeadlineExceeded), u != nil && u.Timeout():
		return fmt.Sprintf("no answer from %s in time; try again, or raise --request-timeout", host), true
	}
	return "", false
}
