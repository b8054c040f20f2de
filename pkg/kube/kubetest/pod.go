package kubetest

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// ConfigOfPod gives the configuration of a pod of a service account on a node. Its
// token is what the kubelet mounts: bound to the pod, and by it to the node. The
// namespace, the account and the node have to exist; the pod is made, and runs
// nowhere.
func (s *Server) ConfigOfPod(t testing.TB, namespace, account, node string) *rest.Config {
	t.Helper()
	name := account + "-" + node
	s.MustKubectl(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s}, spec: {
  nodeName: %s, serviceAccountName: %s, terminationGracePeriodSeconds: 0, containers: [{name: c, image: none}]}}`,
		name, namespace, node, account), "apply", "-f", "-")
	uid := s.MustKubectl(t, "", "-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.uid}")
	c := s.Config()
	c.BearerToken = strings.TrimSpace(s.MustKubectl(t, "", "-n", namespace, "create", "token", account,
		"--bound-object-kind=Pod", "--bound-object-name="+name, "--bound-object-uid="+uid))
	return c
}

// WithToken writes a kubeconfig that is another's, but with a token in place of its user.
func WithToken(t testing.TB, from, to, token string) {
	t.Helper()
	c, err := clientcmd.LoadFromFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for name := range c.AuthInfos {
		c.AuthInfos[name] = &api.AuthInfo{Token: token}
	}
	if err := clientcmd.WriteToFile(*c, to); err != nil {
		t.Fatal(err)
	}
}
