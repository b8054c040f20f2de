package model

import "testing"

func TestNoLabelPretendsToBeCalicos(t *testing.T) {
	own := map[string]string{"projectcalico.org/namespace": "kube-system", "color": "red"}
	got := WorkloadLabels("default", own)
	if got["projectcalico.org/namespace"] != "default" || got["projectcalico.org/orchestrator"] != "k8s" || got["color"] != "red" {
		t.Errorf("labels %v", got)
	}
	if own["projectcalico.org/namespace"] != "kube-system" {
		t.Errorf("the pod's own labels were changed: %v", own)
	}
	if got := WorkloadLabels("default", nil); len(got) != 2 {
		t.Errorf("labels of a pod without any: %v", got)
	}
}
