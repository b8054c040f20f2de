// Package seed reads the ConfigMap muslin-seed: objects of projectcalico.org/v3 that
// a cluster is to begin with, as YAML documents in its keys.
//
// A first install cannot contain such objects, since their CRDs are not served
// yet; the controller makes each of them that is absent, once for each content.
// This package decides what is an object and what is refused, and why, from
// values alone. What only the API server knows, such as the fields of most kinds, it
// leaves to the server. It never writes. Footprint: none; package controller has
// that of the ConfigMap.
package seed

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/model"
)

// The ConfigMap in Muslin's namespace, and the annotation of it that names the
// content that has been dealt with: hashes of objects, with commas between.
const (
	Name       = "muslin-seed"
	Annotation = "muslin.io/seeded"
)

const apiVersion = "projectcalico.org/v3"

// Kinds are those that a seed may have: configuration. Policy is its owners'
// matter, and IPAM's objects are Muslin's own.
var Kinds = []string{
	"BGPConfiguration", "BGPFilter", "BGPPeer", "FelixConfiguration", "IPAMConfiguration", "IPPool", "IPReservation", "KubeControllersConfiguration",
}

// Object is one that can be asked of the API server.
type Object struct {
	From       string // "pools.yaml", or "pools.yaml, document 2"
	Kind, Name string
	Hash       string // of what it says, 16 hexadecimal digits; spaces and comments do not count
	JSON       []byte
}

// String is "IPPool pods (pools.yaml, document 2)".
func (o Object) String() string { return o.Kind + " " + o.Name + " (" + o.From + ")" }

// Refusal says what is wrong with a document, naming it and the field.
type Refusal struct {
	Message string
	// Pool: it is an IPPool, or cannot be read so that it may be one.
	Pool bool
}

// Read gives the objects in order of their keys, and what is refused. One that is
// refused stops no other.
func Read(data map[string]string) (objects []Object, refused []Refusal) {
	from := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(data[key])))
		for n := 1; ; n++ {
			text, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			place := key
			if n > 1 {
				place = fmt.Sprintf("%s, document %d", key, n)
			}
			if err != nil {
				refused = append(refused, Refusal{place + ": " + err.Error(), true})
				break
			}
			o, wrong := read(place, text)
			first, twice := from[o.Kind+" "+o.Name]
			switch {
			case wrong != nil:
				refused = append(refused, *wrong)
			case o.JSON == nil:
			case twice:
				refused = append(refused, Refusal{fmt.Sprintf("%s: is in %s already", o, first), o.Kind == "IPPool"})
			default:
				from[o.Kind+" "+o.Name], objects = place, append(objects, o)
			}
		}
	}
	return objects, refused
}

// read reads one document; neither result is set for an empty one.
func read(place string, text []byte) (Object, *Refusal) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return Object{}, &Refusal{fmt.Sprintf("%s: not YAML: %v", place, err), true}
	}
	if asJSON = bytes.TrimSpace(asJSON); string(asJSON) == "null" {
		return Object{}, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &fields); err != nil {
		return Object{}, &Refusal{place + ": is no object: want apiVersion, kind, metadata and spec", true}
	}
	var head struct {
		APIVersion, Kind string
		Metadata         map[string]json.RawMessage
	}
	if err := json.Unmarshal(asJSON, &head); err != nil {
		return Object{}, &Refusal{fmt.Sprintf("%s: apiVersion, kind and metadata: %v", place, err), true}
	}
	o := Object{From: place, Kind: head.Kind, JSON: asJSON}
	_ = json.Unmarshal(head.Metadata["name"], &o.Name) // none, and what is no text, are refused by judge
	if wrong := evaluate(o, head.APIVersion, fields, head.Metadata); wrong != "" {
		return Object{}, &Refusal{o.String() + ": " + wrong, head.Kind == "IPPool" || !slices.Contains(Kinds, head.Kind)}
	}
	sum := sha256.Sum256(asJSON) // its keys are sorted
	o.Hash = hex.EncodeToString(sum[:8])
	return o, nil
}

// evaluate says what is wrong with an object that the API server would not say, or
// say as a user of a seed understands it.
func evaluate(o Object, version string, fields, metadata map[string]json.RawMessage) string {
	switch {
	case version != apiVersion:
		return fmt.Sprintf("apiVersion: %q is not seeded; want %s", version, apiVersion)
	case !slices.Contains(Kinds, o.Kind):
		return fmt.Sprintf("kind: %q is not seeded; want one of %s", o.Kind, strings.Join(Kinds, ", "))
	case o.Name == "":
		return "metadata.name: is missing, or no text"
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "spec"}, name) {
			return name + ": is no field of a seed's object; want apiVersion, kind, metadata and spec"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		if !slices.Contains([]string{"name", "labels", "annotations"}, name) {
			return "metadata." + name + ": is no field of a seed's object; want name, labels and annotations"
		}
	}
	// The server keeps unknown fields of some kinds, for those that Calico will have.
	var unknown []string
	for _, p := range compat.Spec(model.Ref{Kind: o.Kind, Name: o.Name}, fields["spec"]) {
		if compat.IsUnknown(p) {
			unknown = append(unknown, p.Field)
		}
	}
	if unknown != nil {
		return "unknown field " + strings.Join(unknown, ", ")
	}
	return ""
}
