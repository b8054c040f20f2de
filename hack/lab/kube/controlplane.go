package kube

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// controlPlane writes the disk and spec of the control plane.
func (d *disks) controlPlane() error {
	host := d.topology.ControlPlane
	m := d.site.Machine(host.Name)
	if err := m.WriteDisk([]string{kubeDir}, map[string]string{pkiDir + "/ca.crt": string(d.authority.certPEM)}); err != nil {
		return err
	}
	if err := d.serverKeys(host); err != nil {
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
		config, err := d.kubeconfig(who)
		if err != nil {
			return err
		}
		if err := m.WriteDisk(nil, map[string]string{kubeDir + "/" + file: config}); err != nil {
			return err
		}
	}
	spec := m.Spec()
	spec.Bind = map[string]string{filepath.Join(m.Dir(), "etcd"): "/var/lib/etcd"}
	spec.Services = d.controlPlaneServices()
	return m.Make(spec)
}

func (d *disks) serverKeys(host topology.Host) error {
	dir := d.site.Machine(host.Name).Disk() + pkiDir
	server, err := d.authority.issue(identity{
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
	client, err := d.authority.issue(identity{name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}})
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
func (d *disks) controlPlaneServices() []boot.Service {
	kubelab := d.site.Program("kubelab")
	services := []boot.Service{
		{Name: "kube-apiserver", Argv: append([]string{kubelab, "apiserver-with-etcd"}, d.apiserverFlags()...), Env: append([]string{"KUBELAB_ETCD_DIR=/var/lib/etcd"}, seldomCollected...)},
		{Name: "apiserver-ready", Argv: []string{"sh", "-c", waitReady, kubelab, kubeDir + "/lab"}, Once: true},
		{Name: "kube-controller-manager", Argv: append([]string{kubelab, "kube-controller-manager"}, controllerManagerFlags()...), Env: seldomCollected},
		{Name: "kube-scheduler", Argv: append([]string{kubelab, "kube-scheduler"}, clientFlags("scheduler")...), Env: seldomCollected},
	}
	if len(d.topology.NodesOf(topology.Light)) > 0 {
		services = append(services, d.lightKeeper())
	}
	return services
}

func (d *disks) apiserverFlags() []string {
	var services []string
	if d.topology.Core.V4.IsValid() {
		services = append(services, serviceNet4)
	}
	if d.topology.Core.V6.IsValid() {
		services = append(services, serviceNet6)
	}
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--secure-port=6443", "--bind-address=" + anyAddress(d.topology.Core.V6.IsValid()),
		"--advertise-address=" + d.topology.ControlPlane.Address.Main().String(),
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
