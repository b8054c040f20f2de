// Command cyclonus runs the cases that `cyclonus generate` has by default, over TCP and UDP, and asks for pods
// by address. It differs in two things. It asks each pod once for all that the pod is to try, which cyclonus can do but has
// no flag for: 9 programs started in pods instead of 324. And what a pod sends to its own address is counted apart: it never leaves
// the pod, so that no policy is applied to it, as Kubernetes has it and cyclonus has not.
package main

import (
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"

	"github.com/mattfenwick/cyclonus/pkg/cli"
	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/kube"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cyclonus:", err)
		os.Exit(1)
	}
}

// sums count what pods tried to reach, each by a protocol on a port.
type sums struct{ tried, differ, itself, itselfOpen, itselfShut int }

func run() error {
	cluster, err := kube.NewKubernetesForContext("")
	if err != nil {
		return err
	}
	namespaces, pods := []string{"x", "y", "z"}, []string{"a", "b", "c"}
	resources, err := probe.NewDefaultResources(cluster, namespaces, pods, []int{80, 81}, []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP}, nil, 120, true, "")
	if err != nil {
		return err
	}
	interpreter := connectivity.NewInterpreter(cluster, resources, &connectivity.InterpreterConfig{
		ResetClusterBeforeTestCase: true, VerifyClusterStateBeforeTestCase: true,
		KubeProbeRetries: 1, PerturbationWaitSeconds: 1, BatchJobs: true, IgnoreLoopback: true,
	})
	printer := &connectivity.Printer{IgnoreLoopback: true}
	target, err := resources.GetPod("z", "c")
	if err != nil {
		return err
	}
	cases := generator.NewTestCaseGenerator(true, target.IP, namespaces, nil, cli.DefaultExcludeTags).GenerateTestCases()
	var sum sums
	var failed int
	for i, c := range cases {
		for _, step := range c.Steps {
			step.Probe.Mode = generator.ProbeModePodIP
		}
		result := interpreter.ExecuteTestCase(c)
		if result.Err != nil {
			return fmt.Errorf("case %d, %s: %w", i+1, c.Description, result.Err)
		}
		verdict := "ok"
		if !result.Passed(true) {
			verdict = "FAILED"
			failed++
			printer.PrintTestCaseResult(result)
		}
		for _, step := range result.Steps {
			sum.add(step.LastComparison())
		}
		fmt.Printf("%3d of %d  %-6s  %s\n", i+1, len(cases), verdict, c.Description)
	}
	fmt.Printf("%d cases, %d failed; %d connections tried, %d differ; %d of a pod to itself besides, %d open and %d shut against cyclonus' word\n",
		len(cases), failed, sum.tried, sum.differ, sum.itself, sum.itselfOpen, sum.itselfShut)
	if failed > 0 || len(cases) == 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(cases))
	}
	if sum.itselfShut > 0 {
		return fmt.Errorf("%d connections of a pod to itself failed", sum.itselfShut)
	}
	return nil
}

// add counts the connections of one table.
func (s *sums) add(table *connectivity.ComparisonTable) {
	for _, key := range table.Wrapped.Keys() {
		item := table.Get(key.From, key.To)
		for name, seen := range item.Kube.JobResults {
			differs := seen.Combined != item.Simulated.JobResults[name].Combined
			switch {
			case key.From != key.To:
				s.tried++
				if differs {
					s.differ++
				}
			case differs && seen.Combined == probe.ConnectivityAllowed:
				s.itselfOpen++
			case differs:
				s.itselfShut++
			}
			if key.From == key.To {
				s.itself++
			}
		}
	}
}
