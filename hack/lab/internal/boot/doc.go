// Package boot is what runs as process 1 of a machine of the lab: it turns a
// fresh mount, UTS, IPC and PID namespace into something that looks like a
// computer, starts its services, keeps them running and reaps orphans.
//
// The machine's root is an overlay: the host's root file system below, the
// machine's own disk above. Programs therefore use their default paths, and
// nothing they write reaches the host. /run and /tmp are new at each boot.
//
// It never configures the network: the lab has done that from outside before
// the machine boots. Footprint: mounts in its own mount namespace, and the
// cgroup named in the Spec. A fresh process recognises a machine by that
// cgroup, and by the network namespace of the same name.
package boot
