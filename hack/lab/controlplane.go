package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Paths of the control plane's keys, inside its machine.
const pkiDir = kubeDir + "/pki"

// makeControlPlane writes the disk and spec of the control plane.
func (l *Lab) makeControlPlane(authority *authority) error {
	host := l.topology.ControlPlane
	if err := l.writeDisk(host.Name, []string{kubeDir}, []content{l.hostsFile(), {pkiDir + "/ca.crt", string(authority.certPEM)}}); err != nil {
		return err
	}
	if err := l.writeServerKeys(authority, host); err != nil {
		return fmt.Errorf("write keys of the control plane: %w", err)
	}
	for file, user := range map[string]string{
		"controller-manager": "system:kube-controller-manager",
		"scheduler":          "system:kube-scheduler",
		"lab":                "lab-admin",
	} {
		who := identity{name: user}
		if file == "lab" {
			who.groups = []string{"system:masters"}
		}
		config, err := l.kubeconfig(authority, who)
		if err != nil {
			return err
		}
		if err := l.writeDisk(host.Name, nil, []content{{kubeDir + "/" + file, config}}); err != nil {
			return err
		}
	}
	spec := l.newSpec(host.Name)
	spec.Bind = map[string]string{filepath.Join(l.machineDir(host.Name), "etcd"): "/var/lib/etcd"}
	spec.Services = l.controlPlaneServices()
	return l.writeSpec(host.Name, spec)
}

func (l *Lab) writeServerKeys(authority *authority, host topology.Host) error {
	dir := l.diskDir(host.Name) + pkiDir
	server, err := authority.issue(identity{
		name: "kube-apiserver",
		addresses: []netip.Addr{
			host.Address.V4, host.Address.V6, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"),
			netip.MustParseAddr(serviceIP4), netip.MustParseAddr(serviceIP6),
		},
		hosts: []string{
			"localhost", host.Name, "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		},
	})
	if err != nil {
		return err
	}
	client, err := authority.issue(identity{name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	accounts, err := serviceAccountKeys()
	if err != nil {
		return err
	}
	for name, pair := range map[string]keyPair{"apiserver": server, "kubelet-client": client, "sa": accounts} {
		if err := writePair(dir, name, pair); err != nil {
			return err
		}
	}
	return nil
}

// waitReady starts no kubectl, which is a tenth of a second of processor time, before the API server listens on its port.
const waitReady = `until grep -qs ":192B [0-9A-F:]* 0A " /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
until "$0" kubectl --kubeconfig "$1" get --raw /readyz; do sleep 0.3; done`

// seldomCollected has a Go program collect garbage less often: a quarter of what an API server costs that lives for a
// minute is garbage collection.
var seldomCollected = []string{"GOGC=400", "GOMEMLIMIT=2GiB"}

// controlPlaneServices start the API server first: the others end when it does
// not answer at once, and would be late by a restart.
func (l *Lab) controlPlaneServices() []boot.Service {
	kubelab := l.program("kubelab")
	services := []boot.Service{
		{Name: "kube-apiserver", Argv: append([]string{kubelab, "apiserver-with-etcd"}, l.apiserverFlags()...), Env: append([]string{"KUBELAB_ETCD_DIR=/var/lib/etcd"}, seldomCollected...)},
		{Name: "apiserver-ready", Argv: []string{"sh", "-c", waitReady, kubelab, kubeDir + "/lab"}, Once: true},
		{Name: "kube-controller-manager", Argv: append([]string{kubelab, "kube-controller-manager"}, controllerManagerFlags()...), Env: seldomCollected},
		{Name: "kube-scheduler", Argv: append([]string{kubelab, "kube-scheduler"}, clientFlags("scheduler")...), Env: seldomCollected},
	}
	if len(l.topology.NodesOf(topology.Light)) > 0 {
		services = append(services, l.lightKeeper())
	}
	return services
}

func (l *Lab) apiserverFlags() []string {
	var services []string
	if l.topology.Core.V4.IsValid() {
		services = append(services, serviceNet4)
	}
	if l.hasIPv6() {
		services = append(services, serviceNet6)
	}
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--secure-port=6443", "--bind-address=" + anyAddress(l.hasIPv6()),
		"--advertise-address=" + l.topology.ControlPlane.Address.Main().String(),
		"--tls-cert-file=" + pkiDir + "/apiserver.crt", "--tls-private-key-file=" + pkiDir + "/apiserver.key",
		"--client-ca-file=" + pkiDir + "/ca.crt",
		// Nobody has this name; without it two programs log an error every minute.
		"--requestheader-client-ca-file=" + pkiDir + "/ca.crt", "--requestheader-allowed-names=nobody",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pkiDir + "/sa.crt", "--service-account-signing-key-file=" + pkiDir + "/sa.key",
		"--service-cluster-ip-range=" + strings.Join(services, ","),
		"--kubelet-client-certificate=" + pkiDir + "/kubelet-client.crt", "--kubelet-client-key=" + pkiDir + "/kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--allow-privileged=true",
	}
}

func anyAddress(v6 bool) string {
	if v6 {
		return "::"
	}
	return "0.0.0.0"
}

// nodeGracePeriod is how long a silent node stays Ready; leases are renewed
// every quarter of it.
const nodeGracePeriod = 20 * time.Second

func controllerManagerFlags() []string {
	return append(clientFlags("controller-manager"),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+pkiDir+"/sa.key", "--root-ca-file="+pkiDir+"/ca.crt",
		"--allocate-node-cidrs=false",
		"--kube-api-qps=200", "--kube-api-burst=400",
		"--node-monitor-grace-period="+nodeGracePeriod.String(), "--node-monitor-period=2s",
	)
}

func clientFlags(kubeconfig string) []string {
	path := kubeDir + "/" + kubeconfig
	return []string{
		"--kubeconfig=" + path, "--authentication-kubeconfig=" + path, "--authorization-kubeconfig=" + path,
		"--leader-elect=false", "--bind-address=127.0.0.1",
	}
}

// startControlPlane starts the control plane and waits until the API server is
// ready.
func (l *Lab) startControlPlane(ctx context.Context) error {
	return l.startMachines(ctx, []string{l.topology.ControlPlane.Name})
}

// waitObject waits until the API server has the object at path.
func (l *Lab) waitObject(ctx context.Context, path string, log func() string) error {
	api, err := l.api()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		err := api.do(ctx, "GET", path, nil, nil)
		if err == nil {
			return nil
		}
		if waited := sleep(ctx, 100*time.Millisecond); waited != nil {
			return fmt.Errorf("wait for %s: %w: %s", path, err, log())
		}
	}
}

// api returns a client of the API server with the administrator's rights.
func (l *Lab) api() (*apiClient, error) {
	data, err := os.ReadFile(l.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read administrator's kubeconfig: %w", err)
	}
	return newAPIClient(data, l.DialContext)
}
