package app

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

func (t *Tool) version() *cobra.Command {
	var client bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of muslinctl and of the cluster",
		Example: "  muslinctl version\n  muslinctl version --client",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintf(t.Out, "Client Version:    %s\n", t.Version)
			if client {
				return nil
			}
			return t.serverVersion(c.Context())
		},
	}
	c.Flags().BoolVar(&client, "client", false, "only that of muslinctl; no server is asked")
	return c
}

func (t *Tool) serverVersion(ctx context.Context) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := client.Get(ctx, kind.MustFind("clusterinfo"), "default")
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "Cluster Version:   %s\nCluster Type:      %s\nCluster GUID:      %s\n",
		kind.Text(info, "spec.calicoVersion", "-"), kind.Text(info, "spec.clusterType", "-"), kind.Text(info, "spec.clusterGUID", "-"))
	var k8s struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := client.GetPath(ctx, "/version", nil, &k8s); err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "Kubernetes:        %s\n", k8s.GitVersion)
	return nil
}
