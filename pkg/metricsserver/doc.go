// Package metricsserver serves the metrics of a process, and nothing else, where
// Prometheus can reach them from other machines. It is off unless an address is
// given; health and status stay on the loopback of the node.
//
// With TLS the certificate is made at start, for whoever does not check it, or
// read from files, which are read again when they change. With authorization a
// bearer token is shown to the API server: whose it is (TokenReview), and whether
// he may get the URL /metrics (SubjectAccessReview), as other components of
// Kubernetes do. The answer counts for a minute. Nobody is let in on an answer
// that the API server did not give.
//
// It knows no other room: what it serves is a prometheus.Gatherer. Footprint: one
// TCP port, of the host in a pod of the host's network; two kinds of reviews at the
// API server, which leave nothing there.
package metricsserver
