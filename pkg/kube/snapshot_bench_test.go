package kube

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkSnapshot is what one changed object costs in a cluster of 5,000 nodes: a
// Snapshot, and to find what of it is another.
func BenchmarkSnapshot(b *testing.B) {
	c, err := From(Objects{}, Options{Node: "n0"})
	if err != nil {
		b.Fatal(err)
	}
	node := func(i, asn int) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:   fmt.Sprintf("n%d", i),
				Labels: map[string]string{"kubernetes.io/hostname": fmt.Sprintf("n%d", i), "kubernetes.io/os": "linux", "rack": fmt.Sprint(i / 40)},
				Annotations: map[string]string{"projectcalico.org/IPv4Address": fmt.Sprintf("10.%d.%d.%d/24", i/62500, i/250%250, i%250+1),
					AnnotationASNumber: fmt.Sprint(asn)},
			},
			Spec: corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250)}},
		}
	}
	made := func(name, spec string) *object {
		return &object{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: json.RawMessage(spec)}
	}
	for i := range 5000 {
		_ = c.nodes.Add(node(i, 64512))
	}
	for i := range 20 {
		_ = c.pools.Add(made(fmt.Sprint("pool", i), fmt.Sprintf(`{"cidr": "172.%d.0.0/16"}`, 10+i)))
	}
	filter := func(i int) *object {
		return made("f", fmt.Sprintf(`{"exportV4": [{"action": "Accept", "cidr": "172.10.0.0/16", "matchOperator": "In", "prefixLength": {"min": %d}}]}`, 16+i%2))
	}
	for name, change := range map[string]func(int){
		"filter": func(i int) { _ = c.filters.Update(filter(i)) },
		"node":   func(i int) { _ = c.nodes.Update(node(i*7%5000, 64600+i)) },
		"pool": func(i int) {
			_ = c.pools.Update(made("pool0", fmt.Sprintf(`{"cidr": "172.10.0.0/16", "natOutgoing": %v}`, i%2 == 0)))
		},
	} {
		b.Run(name, func(b *testing.B) {
			var cell task.Cell[model.Snapshot]
			cell.Set(c.Snapshot())
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				change(i)
				if !cell.Set(c.Snapshot()) && i > 0 {
					b.Fatal("nothing is another")
				}
			}
		})
	}
}
