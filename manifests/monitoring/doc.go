// Package monitoring is the folder of what watches Muslin: alerts with their tests,
// dashboards, and what tells a Prometheus where to scrape. It holds no Go code
// beside the tests, which ask promtool, a Prometheus and the tables of
// docs/operations.md whether it is right.
//
// rules/muslin.yaml is the source of the alerts; rules/prometheusrule.yaml is made
// from it by `go test ./manifests/monitoring -update`. dashboards/ is written by
// hack/dashboards.
//
// Footprint: objects named muslin* of monitoring.coreos.com and a ConfigMap, in
// muslin-system, where somebody applies them.
package monitoring
