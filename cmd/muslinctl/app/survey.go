package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/model"
)

// surveyor reads what a Survey holds.
type surveyor struct {
	client *api.Client
	store  *kubestore.Store
	tell   func(string) // progress; does nothing unless stderr is a terminal
}

func (t *Tool) surveyor() (*surveyor, error) {
	client, err := t.flags.Client()
	if err != nil {
		return nil, err
	}
	// Compressing a large list costs the server more time than sending it.
	plain := rest.CopyConfig(client.Config)
	plain.DisableCompression = true
	if client, err = api.NewClient(plain, client.Namespace); err != nil {
		return nil, err
	}
	store, err := kubestore.New(plain, kubestore.Options{})
	if err != nil {
		return nil, err
	}
	return &surveyor{client: client, store: store, tell: t.progress()}, nil
}

// usage reads pools, reservations and blocks.
func (s *surveyor) usage(ctx context.Context) (*ipamview.Survey, error) {
	out := &ipamview.Survey{}
	var err error
	if out.Pools, out.Reserved, err = world.ReadPools(ctx, s.client); err != nil {
		return nil, err
	}
	now := time.Now()
	err = s.client.EachItem(ctx, kind.MustFind("ipamblocks").Path(), func(d *json.Decoder) error {
		var o struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Spec json.RawMessage `json:"spec"`
		}
		if err := d.Decode(&o); err != nil {
			return err
		}
		b := new(ipam.Block)
		switch err := b.UnmarshalJSON(o.Spec); {
		case err != nil:
			out.Invalid = append(out.Invalid, fmt.Sprintf("block %s: cannot be read: %v", o.Metadata.Name, err))
		case !b.Deleted():
			out.AddBlock(b, now)
		}
		if len(out.Blocks)%500 == 0 {
			s.tell(fmt.Sprintf("%d blocks, %d addresses", len(out.Blocks), len(out.Taken)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.tell("")
	out.Sort()
	return out, nil
}

// all reads everything that `ipam check` compares.
func (s *surveyor) all(ctx context.Context) (*ipamview.Survey, error) {
	out, err := s.usage(ctx)
	if err != nil {
		return nil, err
	}
	out.Handles, out.Nodes, out.Pods = map[string]ipam.Handle{}, map[model.NodeName]ipamview.Node{}, map[netip.Addr]ipamview.Pod{}
	out.Services = map[netip.Addr]string{}
	s.tell("affinities, handles, nodes, pods, services")
	defer s.tell("")
	return out, errors.Join(s.affinities(ctx, out), s.handles(ctx, out), s.nodes(ctx, out), s.pods(ctx, out), s.services(ctx, out))
}

func (s *surveyor) affinities(ctx context.Context, out *ipamview.Survey) error {
	_, err := s.client.EachPage(ctx, kind.MustFind("blockaffinities").Path(), api.Select{}, func(page []api.Object) {
		for _, o := range page {
			cidr, err := netip.ParsePrefix(kind.Text(o, "spec.cidr", ""))
			if err != nil || kind.Text(o, "spec.deleted", "false") == "true" {
				continue
			}
			out.Affinities = append(out.Affinities, ipam.Affinity{
				Node: model.NodeName(kind.Text(o, "spec.node", "")), CIDR: cidr, Type: kind.Text(o, "spec.type", "host"),
				State: model.BlockState(kind.Text(o, "spec.state", string(model.BlockConfirmed))),
			})
		}
	})
	return err
}

func (s *surveyor) handles(ctx context.Context, out *ipamview.Survey) error {
	_, err := s.client.EachPage(ctx, kind.MustFind("ipamhandles").Path(), api.Select{}, func(page []api.Object) {
		for _, o := range page {
			if kind.Text(o, "spec.deleted", "false") != "true" {
				out.Handles[kind.Text(o, "metadata.name", "")] = ipam.Handle{ID: kind.Text(o, "spec.handleID", "")}
			}
		}
	})
	return err
}

func (s *surveyor) nodes(ctx context.Context, out *ipamview.Survey) error {
	list, _, err := s.client.List(ctx, kind.MustFind("nodes"), api.Select{})
	for _, o := range list {
		var n ipamview.Node
		for _, path := range []string{"spec.bgp.ipv4IPIPTunnelAddr", "spec.ipv4VXLANTunnelAddr", "spec.ipv6VXLANTunnelAddr"} {
			if a, err := netip.ParseAddr(kind.Text(o, path, "")); err == nil {
				n.Tunnels = append(n.Tunnels, a)
			}
		}
		out.Nodes[model.NodeName(kind.Text(o, "metadata.name", ""))] = n
	}
	return err
}

func (s *surveyor) pods(ctx context.Context, out *ipamview.Survey) error {
	_, err := s.client.EachPage(ctx, "/api/v1/pods", api.Select{Fields: "status.phase!=Succeeded,status.phase!=Failed"}, func(page []api.Object) {
		for _, o := range page {
			if kind.Text(o, "spec.hostNetwork", "") == "true" {
				continue
			}
			for _, a := range kind.PodIPs(o) {
				out.Pods[a] = ipamview.Pod{Namespace: kind.Text(o, "metadata.namespace", ""), Name: kind.Text(o, "metadata.name", ""), Node: kind.Text(o, "spec.nodeName", "")}
			}
		}
	})
	return err
}

func (s *surveyor) services(ctx context.Context, out *ipamview.Survey) error {
	_, err := s.client.EachPage(ctx, "/api/v1/services", api.Select{}, func(page []api.Object) {
		for _, o := range page {
			ingress, _ := kind.At(o, "status.loadBalancer.ingress").([]any)
			for _, x := range ingress {
				i, _ := x.(map[string]any)
				text, _ := i["ip"].(string)
				if a, err := netip.ParseAddr(text); err == nil {
					out.Services[a.Unmap()] = kind.Text(o, "metadata.namespace", "") + "/" + kind.Text(o, "metadata.name", "")
				}
			}
		}
	})
	return err
}
