package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/preview"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
)

// readPreviewed reads objects, those that network policy is made of apart.
func (t *Tool) readPreviewed(f files) (others []input.Document, policies []netpol.Object, err error) {
	if len(f.paths) == 0 {
		return nil, nil, api.Usagef("-f FILE is missing")
	}
	docs, err := input.ReadAny(f.paths, f.deep, t.In)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, d := range docs {
		if !netpol.Speaks(kind.Text(d.Object, "apiVersion", ""), kind.Text(d.Object, "kind", "")) {
			others = append(others, d)
			continue
		}
		o, err := t.policyObject(d)
		policies, errs = append(policies, o), append(errs, err)
	}
	if len(others) > 0 {
		known, err := input.Known(others)
		others, errs = known, append(errs, err)
	}
	return others, policies, errors.Join(errs...)
}

// policyObject decodes an object; one that has to be in a namespace is in that of -n
// where it names none.
func (t *Tool) policyObject(d input.Document) (netpol.Object, error) {
	var o netpol.Object
	data, err := json.Marshal(d.Object)
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil {
		return o, api.Usagef("%s: %w", d.From, err)
	}
	if o.Name == "" {
		return o, api.Usagef("%s: %s: metadata.name is missing", d.From, o.Kind)
	}
	if o.Namespace == "" && netpol.Namespaced(o.Kind) {
		o.Namespace = orDefault(t.flags.Namespace)
	}
	return o, nil
}

func (t *Tool) runPreviewPolicy(ctx context.Context, policies []netpol.Object, format string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	before, err := world.ReadPolicy(ctx, client.Config, true)
	if err != nil {
		return err
	}
	after := before.View
	var problems []model.Problem
	for _, o := range policies {
		var found []model.Problem
		after, found = netpol.Change(after, o)
		problems = append(problems, found...)
	}
	flows, err := t.knownFlows(ctx, client)
	if err != nil {
		return err
	}
	out := preview.Policies(before.View, after, before.Nodes, flows)
	for _, p := range problems {
		out.Problems = append(out.Problems, p.String())
	}
	if format == "json" {
		return writeJSON(t.Out, out)
	}
	fmt.Fprint(t.Out, t.paint(out.Text()))
	return nil
}

// knownFlows asks the agents for the connections that there are, and for what was
// denied. Which agents do not answer is said.
func (t *Tool) knownFlows(ctx context.Context, client *api.Client) ([]preview.Flow, error) {
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return nil, err
	}
	seen := map[nodeview.Flow]bool{}
	var out []preview.Flow
	add := func(f preview.Flow) {
		key := f.Flow
		if key.SourcePort = 0; !seen[key] {
			seen[key] = true
			out = append(out, f)
		}
	}
	for i, a := range atOnce(agents, func(a agentview.Agent) answer[[]preview.Flow] {
		var live []nodeview.Flow
		var denied []nodeview.Denied
		err := errors.Join(a.Get(ctx, client, "/show/flows", &live), a.Get(ctx, client, "/show/denied", &denied))
		var flows []preview.Flow
		for _, f := range live {
			flows = append(flows, preview.Flow{Flow: f, Live: true})
		}
		for _, d := range denied {
			flows = append(flows, preview.Flow{Flow: nodeview.Flow{Source: d.Source, Destination: d.Destination, Protocol: d.Protocol, SourcePort: somePort, Port: d.Port}})
		}
		return answer[[]preview.Flow]{a.Node, flows, err}
	}) {
		if a.err != nil {
			fmt.Fprintf(t.Err, "connections of node %s are not known: %v\n", agents[i].Node, a.err)
		}
		for _, f := range a.views {
			if f.ICMPType == 0 { // of what was denied the type is not kept
				f.ICMPType = map[uint8]uint8{1: 8, 58: 128}[f.Protocol]
			}
			add(f)
		}
	}
	return slices.Clip(out), nil
}

// somePort is one out of those that connections are opened from.
const somePort = 49152
