// Package print shows objects in the formats of calicoctl and kubectl: tables,
// YAML, JSON, names, custom columns, Go templates and JSONPath.
//
// It decides nothing and talks to nobody; it writes to the writer it is given.
package print
