// Package bench measures the whole agent, a process of its own with a real
// kube-apiserver beside it, against BIRD and FRR in the same run. It holds
// benchmarks and nothing else; docs/performance.md says what they gave.
//
// It is not a test: figures are compared within one run, by people. Kernel and
// wire footprint: namespaces and processes that end with the benchmark.
package bench
