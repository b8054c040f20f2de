package gobgp

import (
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// send opens a session, sends messages as they are, in hexadecimal, and keeps it up
// until it is killed or the other end closes it.
func send(messages []string) error {
	conn, err := enter(400)
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for _, text := range messages {
		m, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		if _, err := conn.Write(m); err != nil {
			return err
		}
	}
	alive, err := packet.NewBGPKeepAliveMessage().Serialize()
	for err == nil {
		time.Sleep(10 * time.Second)
		_, err = conn.Write(alive)
	}
	return err
}

// Parts of an UPDATE, in hexadecimal: attributes as they should be, and the
// prefixes 198.51.100.0/24 and 203.0.113.0/24.
const (
	originAttr, nextHopAttr = "40010100", "4003040a090042"
	asPath, ownPath         = "4002060201" + "00010082", "400200" // of AS 65666; of none, as iBGP has it
	tried, marker           = "18c63364", "18cb0071"
	localPref               = "40050400000064"
	externalDefaults        = originAttr + asPath + nextHopAttr
)

// update is an UPDATE of attributes and reachable prefixes.
func update(t *testing.T, attrs, nlri string) string {
	t.Helper()
	a, err := hex.DecodeString(attrs)
	if err != nil {
		t.Fatal(err)
	}
	n, err := hex.DecodeString(nlri)
	if err != nil {
		t.Fatal(err)
	}
	body := append([]byte{0, 0, byte(len(a) >> 8), byte(len(a))}, a...)
	return hex.EncodeToString(frame(packet.BGP_MSG_UPDATE, append(body, n...)))
}

// What becomes of a prefix that is announced well first, and then with something
// that is malformed; a prefix after it tells that the session goes on.
const (
	withdrawn = "withdrawn" // RFC 7606: treat-as-withdraw
	kept      = "kept"      // attribute discard
	closed    = "closed"    // session reset
	// stricter: RFC 7606 discards the attribute where GoBGP, which does not know from
	// whom a message is when it reads it, withdraws.
	stricter = withdrawn
)

// malformed are the cases of RFC 7606 section 7, and of the RFCs after it that
// define attributes.
var malformed = map[string]struct {
	attrs, nlri string
	internal    bool // over iBGP
	want        string
}{
	"nothing wrong":                          {externalDefaults, tried, false, kept},
	"ORIGIN of two bytes":                    {"4001020000" + asPath + nextHopAttr, tried, false, withdrawn},
	"ORIGIN that is none":                    {"40010103" + asPath + nextHopAttr, tried, false, withdrawn},
	"ORIGIN marked optional":                 {"c0010100" + asPath + nextHopAttr, tried, false, withdrawn},
	"no ORIGIN":                              {asPath + nextHopAttr, tried, false, withdrawn},
	"no AS_PATH":                             {originAttr + nextHopAttr, tried, false, withdrawn},
	"no NEXT_HOP":                            {originAttr + asPath, tried, false, withdrawn},
	"AS_PATH, segment longer than it":        {originAttr + "400206020200010082" + nextHopAttr, tried, false, withdrawn},
	"AS_PATH, segment of nobody":             {originAttr + "4002020200" + nextHopAttr, tried, false, withdrawn},
	"AS_PATH, segment type 9":                {originAttr + "400206090100010082" + nextHopAttr, tried, false, withdrawn},
	"NEXT_HOP of three bytes":                {originAttr + asPath + "4003030a0900", tried, false, withdrawn},
	"MULTI_EXIT_DISC of two bytes":           {externalDefaults + "8004020000", tried, false, withdrawn},
	"LOCAL_PREF over eBGP":                   {externalDefaults + "4005040000000a", tried, false, kept},
	"LOCAL_PREF of three bytes over eBGP":    {externalDefaults + "40050300000a", tried, false, stricter},
	"LOCAL_PREF of three bytes":              {originAttr + ownPath + nextHopAttr + "400503000064", tried, true, withdrawn},
	"ATOMIC_AGGREGATE of a byte":             {externalDefaults + "40060100", tried, false, kept},
	"AGGREGATOR of three bytes":              {externalDefaults + "c00703000001", tried, false, kept},
	"COMMUNITIES of five bytes":              {externalDefaults + "c008050001000100", tried, false, withdrawn},
	"COMMUNITIES of none":                    {externalDefaults + "c00800", tried, false, kept},
	"ORIGINATOR_ID over eBGP":                {externalDefaults + "8009040a090042", tried, false, kept},
	"ORIGINATOR_ID of three bytes over eBGP": {externalDefaults + "8009030a0900", tried, false, stricter},
	"ORIGINATOR_ID of three bytes":           {originAttr + ownPath + nextHopAttr + localPref + "8009030a0900", tried, true, withdrawn},
	"CLUSTER_LIST over eBGP":                 {externalDefaults + "800a040a090042", tried, false, kept},
	"CLUSTER_LIST of three bytes over eBGP":  {externalDefaults + "800a030a0900", tried, false, stricter},
	"CLUSTER_LIST of three bytes":            {originAttr + ownPath + nextHopAttr + localPref + "800a030a0900", tried, true, withdrawn},
	"extended communities of five":           {externalDefaults + "c010050001000100", tried, false, withdrawn},
	"large communities of five":              {externalDefaults + "c020050001000100", tried, false, withdrawn},
	"an attribute twice":                     {externalDefaults + "40010101", tried, false, kept},
	"unknown, transitive":                    {externalDefaults + "c0f00101", tried, false, kept},
	"longer than all attributes":             {externalDefaults + "c00820000100", tried, false, withdrawn},
	"MP_REACH_NLRI twice":                    {originAttr + asPath + mpReach + mpReach, "", false, closed},
	"MP_REACH_NLRI, next hop of three":       {originAttr + asPath + "800e09000101030a0900" + "0000", "", false, closed},
	"MP_UNREACH_NLRI of two bytes":           {externalDefaults + "800f020001", tried, false, closed},
	"prefix of 33 bits":                      {externalDefaults, "21c633640000", false, closed},
	"prefix that is cut off":                 {externalDefaults, "18c633", false, closed},
	"unknown and marked well-known":          {externalDefaults + "40f00101", tried, false, closed},
}

// mpReach announces fd66::/64.
const mpReach = "800e1e" + "000201" + "10fd090000000000000000000000000066" + "00" + "40fd66000000000000"

// TestMalformedAttributes: each of them costs what RFC 7606 says, and no more.
func TestMalformedAttributes(t *testing.T) {
	for name, c := range malformed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, evil := n.Host(1), n.Host(66)
			snap := withPeer(clusterOf(a), evil.V4, 65666)
			good := update(t, externalDefaults, tried)
			last := update(t, externalDefaults, marker)
			if c.internal {
				snap.BGP[0].ASN = 65666
				good, last = update(t, originAttr+ownPath+nextHopAttr+localPref, tried), update(t, originAttr+ownPath+nextHopAttr+localPref, marker)
			}
			s := startSpeaker(t, a, "")
			s.apply(desired(t, snap))
			evil.Start("env", hostileEnv+"=send "+strings.Join([]string{good, update(t, c.attrs, c.nlri), last}, " "), os.Args[0])
			var flaps int
			bgptest.Eventually(t, "it has been judged", func() string {
				flaps = 0
				for _, p := range s.state().Peers {
					flaps += p.Flaps
				}
				if flaps == 0 && !strings.Contains(s.learned(), "203.0.113.0/24") {
					return s.learned() + s.peers()
				}
				return ""
			})
			got := withdrawn
			switch {
			case flaps > 0:
				got = closed
			case strings.Contains(s.learned(), "198.51.100.0/24"):
				got = kept
			}
			want := c.want
			if name == "longer than all attributes" && !patched("0011") {
				want = kept // the release says that it withdraws, and has not read what
			}
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}
