package world

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/pkg/model"
)

// readWorkloads lists the pods by node, as agents see them, if a BGPPeer asks for
// pods.
func readWorkloads(ctx context.Context, cfg *rest.Config, snap model.Snapshot) (map[model.NodeName][]model.Workload, error) {
	if !bgp.AsksForWorkloads(snap) {
		return nil, nil
	}
	client, err := api.NewClient(cfg, "")
	if err != nil {
		return nil, err
	}
	out := map[model.NodeName][]model.Workload{}
	running := api.Select{Fields: "status.phase!=Succeeded,status.phase!=Failed"}
	_, err = client.EachPage(ctx, "/api/v1/pods", running, func(page []api.Object) {
		for _, o := range page {
			node := model.NodeName(kind.Text(o, "spec.nodeName", ""))
			if w := workloadOf(o); node != "" && len(w.Addresses) > 0 && kind.Text(o, "spec.hostNetwork", "") != "true" {
				out[node] = append(out[node], w)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list pods for localWorkloadSelector: %w", err)
	}
	return out, nil
}

func workloadOf(o api.Object) model.Workload {
	w := model.Workload{Namespace: kind.Text(o, "metadata.namespace", ""), Pod: kind.Text(o, "metadata.name", ""), Addresses: kind.PodIPs(o)}
	labels := map[string]string{}
	given, _ := kind.At(o, "metadata.labels").(map[string]any)
	for name, value := range given {
		labels[name], _ = value.(string)
	}
	w.Labels = model.WorkloadLabels(w.Namespace, labels)
	return w
}
