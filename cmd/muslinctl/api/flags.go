package api

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

// Flags say which server to talk to, in kubectl's words.
type Flags struct {
	Kubeconfig, Context, Cluster, User, Server, Token, Namespace, As string
	AsGroups                                                         []string
	Timeout                                                          time.Duration
	Insecure                                                         bool
	// Config is a calicoctl.cfg; its kubeconfig is used.
	Config string
}

// Bind makes the flags known.
func (f *Flags) Bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.Kubeconfig, "kubeconfig", "", "path of the kubeconfig; default: $KUBECONFIG, ~/.kube/config, the pod's service account")
	fs.StringVar(&f.Context, "context", "", "context of the kubeconfig to use")
	fs.StringVar(&f.Cluster, "cluster", "", "cluster of the kubeconfig to use")
	fs.StringVar(&f.User, "user", "", "user of the kubeconfig to use")
	fs.StringVarP(&f.Server, "server", "s", "", "address of the API server")
	fs.StringVar(&f.Token, "token", "", "bearer token")
	fs.StringVarP(&f.Namespace, "namespace", "n", "", "namespace of pods")
	fs.StringVar(&f.As, "as", "", "user to impersonate")
	fs.StringArrayVar(&f.AsGroups, "as-group", nil, "group to impersonate; may be given several times")
	fs.DurationVar(&f.Timeout, "request-timeout", 30*time.Second, "how long one request may take; 0: for ever")
	fs.BoolVar(&f.Insecure, "insecure-skip-tls-verify", false, "do not check the server's certificate")
	fs.StringVarP(&f.Config, "config", "c", "", "a calicoctl.cfg whose spec.kubeconfig is used")
	fs.Bool("allow-version-mismatch", false, "accepted for calicoctl's sake; versions need not match")
	for _, name := range []string{"cluster", "user", "server", "token", "as", "as-group", "insecure-skip-tls-verify", "config", "allow-version-mismatch"} {
		_ = fs.MarkHidden(name)
	}
}

// RESTConfig is the client configuration the flags lead to, and the namespace.
func (f *Flags) RESTConfig() (*rest.Config, string, error) {
	path, err := f.kubeconfig()
	if err != nil {
		return nil, "", err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	rules.WarnIfAllMissing = false
	o := &clientcmd.ConfigOverrides{
		CurrentContext: f.Context,
		Context:        clientapi.Context{Cluster: f.Cluster, AuthInfo: f.User, Namespace: f.Namespace},
		ClusterInfo:    clientapi.Cluster{Server: f.Server, InsecureSkipTLSVerify: f.Insecure},
		AuthInfo:       clientapi.AuthInfo{Token: f.Token, Impersonate: f.As, ImpersonateGroups: f.AsGroups},
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, o)
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", &ConfigError{path, err}
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", &ConfigError{path, err}
	}
	cfg.Timeout, cfg.UserAgent, cfg.QPS = f.Timeout, "muslinctl", -1
	cfg.WarningHandler = rest.NoWarnings{}
	return cfg, namespace, nil
}

// kubeconfig is the path given, or that in a calicoctl.cfg.
func (f *Flags) kubeconfig() (string, error) {
	if f.Kubeconfig != "" || f.Config == "" {
		return f.Kubeconfig, nil
	}
	data, err := os.ReadFile(f.Config)
	if err != nil {
		return "", &ConfigError{f.Config, err}
	}
	var cfg struct {
		Spec struct {
			Kubeconfig    string `json:"kubeconfig"`
			DatastoreType string `json:"datastoreType"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &cfg); err != nil {
		return "", &ConfigError{f.Config, err}
	}
	if t := cfg.Spec.DatastoreType; t != "" && t != "kubernetes" {
		return "", &ConfigError{f.Config, fmt.Errorf("spec.datastoreType: %q is not served; only kubernetes is", t)}
	}
	return cfg.Spec.Kubeconfig, nil
}

// Client opens nothing yet: the first request connects.
func (f *Flags) Client() (*Client, error) {
	cfg, namespace, err := f.RESTConfig()
	if err != nil {
		return nil, err
	}
	return NewClient(cfg, namespace)
}

// NewClient makes a client for a configuration.
func NewClient(cfg *rest.Config, namespace string) (*Client, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath = &schema.GroupVersion{Version: "v1"}, "/api"
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, &ConfigError{"", err}
	}
	return &Client{rest: client, Config: cfg, Namespace: namespace}, nil
}
