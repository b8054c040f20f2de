// Command kubelab is every Kubernetes program the lab runs, in one binary:
// control plane, node programs and kubectl, with etcd built in.
//
// The program to run is named by argv[0]'s base name, or by argv[1] when the
// binary is called kubelab. It is a Go module of its own so that the module of
// Muslin stays light. It never configures anything by itself: flags are those
// of the upstream programs, and the lab writes them.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const usage = "kubelab: etcd|apiserver-with-etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy|kubectl [flags]"

func main() {
	name := filepath.Base(os.Args[0])
	if name == "kubelab" && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
		return
	case "kubectl":
		// kubectl has its own error printing and exit codes.
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
		return
	}
	command, err := program(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}

// program constructs only the wanted command: feature gates and flags are
// registered on construction, and two programs in one process would collide.
func program(name string) (*cobra.Command, error) {
	switch name {
	case "apiserver-with-etcd":
		if err := startEtcd(os.Getenv("KUBELAB_ETCD_DIR")); err != nil {
			return nil, err
		}
		return apiserver.NewAPIServerCommand(), nil
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand(), nil
	case "kube-controller-manager":
		return kcm.NewControllerManagerCommand(), nil
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand(), nil
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background()), nil
	case "kube-proxy":
		return proxy.NewProxyCommand(), nil
	}
	return nil, fmt.Errorf("unknown program %q\n%s", name, usage)
}
