package world

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/ctl/kind"
)

// overlay answers lists of the changes' kinds as if the changes had been made.
func overlay(changes []api.Object) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &overlaid{next, changes} }
}

type overlaid struct {
	next    http.RoundTripper
	changes []api.Object
}

// RoundTrip changes the answer to a list. A list in the form of a watch is
// refused, upon which the client asks for a plain one.
func (o *overlaid) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Query().Get("sendInitialEvents") == "true" {
		const body = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"lists only"}`
		return &http.Response{
			StatusCode: http.StatusUnprocessableEntity, Status: "422 Unprocessable Entity", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
	mine := o.of(req)
	if len(mine) > 0 {
		req = req.Clone(req.Context())
		req.Header.Set("Accept", "application/json") // nodes would travel as protobuf
	}
	resp, err := o.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK || req.Method != http.MethodGet || req.URL.Query().Get("watch") != "" {
		return resp, err
	}
	if len(mine) == 0 {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if body, err = lay(body, mine); err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return resp, nil
}

// of gives the changes that concern a list.
func (o *overlaid) of(req *http.Request) []api.Object {
	var out []api.Object
	for _, c := range o.changes {
		if k, err := kind.Find(kind.Text(c, "kind", "")); err == nil && strings.HasSuffix(req.URL.Path, k.Path()) {
			out = append(out, c)
		}
	}
	return out
}

// merge does a merge patch of the metadata of a Node (RFC 7386, two levels).
func merge(have, patch api.Object) {
	meta, _ := have["metadata"].(api.Object)
	for field, v := range patch {
		into, ok := meta[field].(api.Object)
		with, isMap := v.(api.Object)
		if !isMap {
			continue // resourceVersion
		}
		if !ok {
			into = api.Object{}
			meta[field] = into
		}
		for k, x := range with {
			if x == nil {
				delete(into, k)
			} else {
				into[k] = x
			}
		}
	}
}

// lay puts objects into a list, over those of the same names.
func lay(body []byte, changes []api.Object) ([]byte, error) {
	var list api.Object
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	items, _ := list["items"].([]any)
	for _, c := range changes {
		name, found := kind.Text(c, "metadata.name", ""), false
		for _, x := range items {
			have, _ := x.(api.Object)
			if kind.Text(have, "metadata.name", "") != name {
				continue
			}
			if patch, ok := c["patch"].(api.Object); ok {
				found = true
				meta, _ := patch["metadata"].(api.Object)
				merge(have, meta)
			} else {
				have["spec"], found = c["spec"], true
				if a := kind.At(c, "metadata.annotations"); a != nil {
					have["metadata"].(api.Object)["annotations"] = a
				}
			}
		}
		if !found && c["patch"] == nil {
			items = append(items, api.Object{"apiVersion": kind.GroupVersion, "kind": c["kind"], "spec": c["spec"],
				"metadata": api.Object{"name": name, "uid": "preview-" + name, "resourceVersion": "1",
					"annotations": kind.At(c, "metadata.annotations"), "creationTimestamp": time.Now().UTC().Format(time.RFC3339)}})
		}
	}
	list["items"] = items
	return json.Marshal(list)
}
