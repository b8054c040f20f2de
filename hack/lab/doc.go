// Package lab runs a whole Kubernetes cluster, its routers and its racks on
// one Linux machine, for tests and for trying things by hand.
//
// A topology file names racks, routers (real BIRD or FRR), nodes and an
// outside host. Each of them becomes a machine: its own network, mount, UTS,
// IPC and PID namespace, with the host's root file system under a private
// overlay, so that real programs run at their default paths. Full nodes run
// the real kubelet, containerd, runc and kube-proxy; light nodes run a
// configurable agent alone, and pods are namespaces plugged by the CNI binary.
// The control plane is the real kube-apiserver (etcd inside), controller
// manager and scheduler. There is no layer 2 between racks.
//
//	topology, err := topology.Read("hack/lab/topologies/two-racks.yaml")
//	l, err := lab.New(topology, lab.Options{})
//	phases, err := l.Up(ctx)
//	out, err := l.Machine("n1").Exec(ctx, "ip", "route")
//	routes, err := l.Fabric.Routes("tor1")
//	err = l.Down(ctx)
//
// This package only puts parts together. Each stands on those above it; read them
// in this order:
//
//	topology          the plan: racks, routers, nodes, every address; pure
//	   |
//	fabric            namespaces, switches, cables, routes; no process
//	   |
//	machine           a computer: disk, services, power, programs run in it
//	   |
//	   +-- router     BIRD or FRR on a machine
//	   +-- pod        pods of light nodes, plugged by their CNI plugin
//	   +-- kube       control plane, nodes, images, kubectl
//	   |
//	lab               Up, Down, Status, and who uses which part
//
// internal/boot is process 1 of a machine, cmd/machine its program, probe what
// pods and tests measure with, kubelab how the Kubernetes programs are built.
//
// It never touches the host's own network namespace, or files outside its state
// directory and /run/netns. Of machine-wide sysctls it raises one, and leaves it
// so: fs.inotify.max_user_instances, to 1,024.
//
// Footprint, all with the lab's name as prefix: network namespaces NAME-…, one
// for each machine and NAME-fabric holding one bridge for each subnet; cgroups
// NAME-… in every hierarchy; the state directory; processes and mounts inside
// the machines' own namespaces. A fresh process recognises a lab by those
// names: Down works from them alone, without any state file.
package lab
