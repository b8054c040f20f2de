package policynft

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
)

// Directions of the packets that a chain judges, seen from the pod.
const (
	ingress = "ingress"
	egress  = "egress"
)

func directionOf(id policy.ChainID) string {
	if strings.HasPrefix(string(id), "e-") || strings.HasPrefix(string(id), untrackedOutChain) {
		return egress
	}
	return ingress
}

// LogGroup is the nflog group that denied packets are handed to.
const LogGroup = 28021

// How much is logged for each rule that denies or logs: packets a second, and how many
// at once before that counts. Of a packet the headers are of interest.
const (
	logRate  = 10
	logBurst = 100
	logBytes = 128
)

// Names of chains: denied- with a direction counts and drops, deny- with a digest logs
// what one rule denies, and goes there.
const (
	deniedPrefix = "denied-"
	denyPrefix   = "deny-"
)

// unknownPod stands for what closes a pod that the Program does not have.
const unknownPod = "a pod that is not known yet"

// Denial is what denies packets: a rule of a policy, or the end of a tier.
type Denial struct {
	Direction string // "ingress" or "egress", seen from the pod
	By        string // policy.Origin as text, or "a pod that is not known yet"
}

// String gives "ingress default NetworkPolicy shop/db rule 0".
func (d Denial) String() string { return d.Direction + " " + d.By }

// denial adds the chain that ends what a rule denies, if no rule before asked for it,
// and gives its name.
func (t *table) denial(d Denial) string {
	name := denyPrefix + digest(d.String())
	if _, there := t.denials[prefix(d.String(), "")]; !there {
		t.deny(t.Chain(name, nil), d)
	}
	return name
}

// deny adds the rules that end it: the limit of the first does not limit what is
// dropped.
func (t *table) deny(c *nftw.Chain, d Denial) {
	start := prefix(d.String(), "")
	t.denials[start] = d
	if !t.discard {
		c.Add(nftw.AtMost(logRate, logBurst), nftw.LogTo(LogGroup, logBytes, start))
	}
	c.AddCommented(comment(d.By), nftw.Count(), nftw.To(expr.VerdictGoto, deniedPrefix+d.Direction))
}

// prefix cuts what a log line begins with to what the kernel takes; what is cut
// off is told apart by a digest.
func prefix(text, end string) string {
	if room := nftw.MaxPrefix - len(end); len(text) > room {
		sum := "~" + digest(text)
		text = text[:room-len(sum)] + sum
	}
	return text + end
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
