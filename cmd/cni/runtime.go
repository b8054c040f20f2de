package main

import (
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/jsonscan"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// Error codes of the CNI specification (types.Err… of its library).
const (
	codeIncompatibleVersion uint = 1
	codeEnvironment         uint = 4
	codeIO                  uint = 5
	codeDecoding            uint = 6
	codeNetworkConfig       uint = 7
	codeTryAgainLater       uint = 11
	codePluginNotAvailable  uint = 50
)

// versions of the specification, from old to new.
var versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// rules of a verb.
type rules struct {
	verb  client.Verb
	needs []string // variables
	since string   // the first version that has it
}

// rulesOf are those of the specification.
func rulesOf(verb string) (rules, bool) {
	switch verb {
	case "ADD":
		return rules{client.Add, []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}, versions[0]}, true
	case "DEL":
		return rules{client.Del, []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}, versions[0]}, true
	case "CHECK":
		return rules{client.Check, []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}, "0.4.0"}, true
	case "GC":
		return rules{client.GC, []string{"CNI_PATH"}, "1.1.0"}, true
	case "STATUS":
		return rules{client.Status, []string{"CNI_PATH"}, "1.1.0"}, true
	}
	return rules{}, false
}

// request is what a runtime asks for.
type request struct {
	client.Request
	verb          client.Verb
	socket, spool string
}

// read takes a request from the environment and standard input and holds it to
// the specification; what is wrong is a *client.Error.
func read(name string, getenv func(string) string, stdin io.Reader) (request, error) {
	verb, known := rulesOf(name)
	if !known {
		return request{}, refuse(codeEnvironment, "unknown CNI_COMMAND: "+name, "")
	}
	r := request{verb: verb.verb, Request: client.Request{
		ContainerID: getenv("CNI_CONTAINERID"), Netns: getenv("CNI_NETNS"), IfName: getenv("CNI_IFNAME"), Args: getenv("CNI_ARGS"),
	}}
	missing := ""
	for _, name := range verb.needs {
		if getenv(name) == "" {
			missing += "," + name
		}
	}
	if missing != "" {
		return r, refuse(codeEnvironment, "required env variables ["+missing[1:]+"] missing", "")
	}
	if slices.Contains(verb.needs, "CNI_CONTAINERID") {
		if err := checkNames(r.ContainerID, r.IfName); err != nil {
			return r, err
		}
	}
	var err error
	if r.Config, err = readAll(stdin, input[:0]); err != nil {
		return r, refuse(codeIO, "read standard input: "+err.Error(), "")
	}
	return r, r.configure(name, verb.since)
}

// readAll is io.ReadAll with a buffer to begin with.
func readAll(from io.Reader, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// configure reads the keys of the network configuration that are for the plugin.
func (r *request) configure(name, since string) error {
	network, config, odd := "", "0.1.0", "" // the version is of a configuration that does not say
	r.socket, r.spool = client.DefaultSocket, spoolentry.DefaultDir
	err := jsonscan.Object(r.Config, func(key []byte, v jsonscan.Value) {
		var place *string
		switch string(key) {
		case "name":
			place = &network
		case "cniVersion":
			place = &config
		case "socket":
			place = &r.socket
		case "spool":
			place = &r.spool
		default:
			return
		}
		switch {
		case v.String:
			*place = string(v.Text)
		case string(v.Text) != "null":
			odd = string(key)
		}
	})
	if err != nil {
		return refuse(codeDecoding, "network configuration: "+err.Error(), "")
	}
	if odd != "" {
		return refuse(codeDecoding, "network configuration: "+odd+" is not a string", "")
	}
	at := slices.Index(versions, config)
	switch {
	case network == "":
		return refuse(codeNetworkConfig, "missing network name", "")
	case !isName(network):
		return refuse(codeNetworkConfig, "invalid characters found in network name", network)
	case at < 0:
		return refuse(codeIncompatibleVersion, "incompatible CNI versions",
			"config is "+strconv.Quote(config)+", plugin supports ["+versionList(" ")+"]")
	case at < slices.Index(versions, since):
		return refuse(codeIncompatibleVersion, "config version does not allow "+name, "")
	}
	return nil
}

func refuse(code uint, msg, details string) error {
	return &client.Error{Code: code, Msg: msg, Details: details}
}

// isName holds a name to what the specification allows for networks and
// containers.
func isName(s string) bool {
	for i, c := range []byte(s) {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return s != ""
}

func checkNames(container, ifname string) error {
	const longest = 15 // bytes, IFNAMSIZ less the end
	switch {
	case !isName(container):
		return refuse(codeEnvironment, "invalid characters in containerID", container)
	case len(ifname) > longest:
		return refuse(codeEnvironment, "interface name is too long", "at most "+strconv.Itoa(longest)+" bytes are allowed")
	case ifname == "." || ifname == "..":
		return refuse(codeEnvironment, "interface name is . or ..", "")
	}
	for _, c := range ifname {
		if c == '/' || c == ':' || isSpace(c) {
			return refuse(codeEnvironment, "interface name contains / or : or whitespace characters", "")
		}
	}
	return nil
}

// isSpace is that of package unicode, which sets up maps when the process starts.
func isSpace(c rune) bool {
	switch {
	case '\t' <= c && c <= '\r', 0x2000 <= c && c <= 0x200a:
		return true
	}
	switch c {
	case ' ', 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000:
		return true
	}
	return false
}

// versionList names the versions, each in quotes.
func versionList(separator string) string {
	var b []byte
	for i, v := range versions {
		if i > 0 {
			b = append(b, separator...)
		}
		b = jsonscan.AppendString(b, v)
	}
	return string(b)
}

func versionResult() []byte {
	b := jsonscan.AppendString([]byte(`{"cniVersion":`), versions[len(versions)-1])
	b = append(append(append(b, `,"supportedVersions":[`...), versionList(",")...), "]}\n"...)
	return b
}

// printed is an error as it goes to standard output.
func printed(err error) []byte {
	e := &client.Error{Code: codeIO, Msg: err.Error()}
	_ = errors.As(err, &e)
	b := strconv.AppendUint([]byte(`{"code":`), uint64(e.Code), 10)
	b = jsonscan.AppendString(append(b, `,"msg":`...), e.Msg)
	if e.Details != "" {
		b = jsonscan.AppendString(append(b, `,"details":`...), e.Details)
	}
	return append(b, "}\n"...)
}
