package app

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sys/unix"
)

// bfdPort is the UDP port of BFD's control packets (RFC 5881 section 4).
const bfdPort = 3784

// portsTaken tells which ports that BGP needs are another process's: FRR, BIRD or
// MetalLB on the same host. failure is what the speaker said when it was told cfg.
func portsTaken(node model.NodeName, cfg bgp.Config, failure error, log *slog.Logger) (problems []model.Problem) {
	if errors.Is(failure, unix.EADDRINUSE) {
		problems = append(problems, model.Problem{
			Object: model.Ref{Kind: "BGPConfiguration", Name: "default"}, Field: "spec.listenPort", Reason: "PortTaken",
			Message: fmt.Sprintf("another process of node %s listens on TCP port %d: stop it there, or choose another listenPort, in BGPConfiguration node.%s for this node alone", node, cfg.ListenPort, node),
		})
	}
	if !slices.ContainsFunc(cfg.Peers, func(p bgp.Peer) bool { return p.BFD != nil }) {
		return problems
	}
	// A daemon that shares the port, as sockets of UDP may, takes the packets just so.
	if others, err := othersOnUDP(bfdPort); err != nil {
		log.Debug("udp sockets not read", "error", err)
	} else if others {
		problems = append(problems, nodeProblem(node, "", "PortTaken",
			fmt.Sprintf("another process of node %s has UDP port %d: BFD does not come up; stop it (FRR's bfdd, BIRD's protocol bfd), or take muslin.io/bfd from the BGPPeers", node, bfdPort)))
	}
	return problems
}

// othersOnUDP tells whether a socket on this port is not this process's.
func othersOnUDP(port int) (bool, error) {
	own, err := ownSockets()
	if err != nil {
		return false, err
	}
	var errs []error
	for _, table := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 here
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		others := false
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode, see proc(5)
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			inode, err := strconv.Atoi(fields[9])
			others = others || err == nil && !own[inode]
		}
		errs = append(errs, f.Close())
		if others {
			return true, nil
		}
	}
	return false, errors.Join(errs...)
}

// ownSockets are the inodes of this process's sockets.
func ownSockets() (map[int]bool, error) {
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil, err
	}
	out := map[int]bool{}
	for _, f := range files {
		target, err := os.Readlink(f) // one that was closed meanwhile is no socket of ours
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			if n, err := strconv.Atoi(strings.TrimSuffix(inode, "]")); err == nil {
				out[n] = true
			}
		}
	}
	return out, nil
}
