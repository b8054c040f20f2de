package cniserver

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/model"
)

// attachment is one interface of one sandbox, as the request names it.
type attachment struct {
	conf
	containerID, ifname, netns string
	namespace, pod             string // empty: not a Kubernetes pod
	uid                        string // the pod's, as the runtime knows it; may be empty
	wantAddress                string // IP of CNI_ARGS
	hostInterface              string
	withoutIPAM                bool // it stands, or is to stand, with addresses that IPAM does not know
}

func (s *Server) parse(r *cnirpc.Request) (attachment, error) {
	c, err := parseConf(r.GetConfig())
	if err != nil {
		return attachment{}, err
	}
	a := attachment{conf: c, containerID: r.GetContainerId(), ifname: r.GetIfname(), netns: r.GetNetns()}
	if a.containerID == "" || a.ifname == "" {
		return a, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID or CNI_IFNAME is missing", "")
	}
	args, err := parseArgs(r.GetArgs())
	if err != nil {
		return a, err
	}
	a.namespace, a.pod, a.wantAddress = args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"], args["IP"]
	a.uid = args["K8S_POD_UID"]
	if (a.namespace == "") != (a.pod == "") {
		return a, types.NewError(types.ErrInvalidEnvironmentVariables,
			"CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME go together", "")
	}
	a.hostInterface = HostInterface(s.o.InterfacePrefix(), a.namespace, a.pod, a.containerID)
	if ep, stands := s.endpoint(a); stands {
		a.hostInterface = ep.HostInterface // maybe of another prefix
	}
	return a, nil
}

// parseArgs reads CNI_ARGS, "K=V;K=V". Keys that nobody knows are kept: with
// a runtime that sets them, IgnoreUnknown is always there too.
func parseArgs(text string) (map[string]string, error) {
	args := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("CNI_ARGS: %q is not KEY=VALUE", pair), "")
		}
		args[k] = v
	}
	return args, nil
}

// HostInterface names the host's side of a pod's veth as Calico does: the prefix
// ("cali" when empty) and 11 hex digits of the SHA-1 of "namespace.pod", or of
// the container ID for what is not a Kubernetes pod.
func HostInterface(prefix, namespace, pod, containerID string) string {
	if prefix == "" {
		prefix = "cali"
	}
	id := containerID
	if pod != "" {
		id = namespace + "." + pod
	}
	sum := sha1.Sum([]byte(id))
	return prefix + hex.EncodeToString(sum[:])[:11]
}

func (a attachment) isPod() bool { return a.pod != "" }

// handle is the allocation's owner, in Calico's form.
func (a attachment) handle() string { return a.network + "." + a.containerID }

// String names the attachment in messages.
func (a attachment) String() string {
	if a.isPod() {
		return fmt.Sprintf("pod %s/%s (sandbox %s)", a.namespace, a.pod, a.containerID)
	}
	return "container " + a.containerID
}

// keys are what a verb on this attachment locks, in the order of locking.
func (a attachment) keys() []string {
	return lockKeys(a.namespace, a.pod, a.containerID)
}

func lockKeys(namespace, pod, containerID string) []string {
	if pod == "" {
		return []string{"sandbox/" + containerID}
	}
	return []string{"pod/" + namespace + "/" + pod, "sandbox/" + containerID}
}

// iface is the attachment's wire without what ADD alone knows.
func (a attachment) iface() InterfaceSpec {
	return InterfaceSpec{
		ContainerID: a.containerID, Interface: a.ifname, Netns: a.netns,
		Namespace: a.namespace, Pod: a.pod, HostInterface: a.hostInterface,
		MTU: a.mtu, Queues: a.queues, Forwarding: a.forwarding,
	}
}

// of makes the attachment of an endpoint that the rooms know.
func of(network string, ep model.Endpoint) attachment {
	return attachment{
		conf: conf{network: network}, containerID: ep.ContainerID, ifname: ep.Interface,
		namespace: ep.Namespace, pod: ep.Pod, hostInterface: ep.HostInterface, withoutIPAM: ep.WithoutIPAM != "",
	}
}
