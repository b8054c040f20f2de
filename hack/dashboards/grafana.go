// Package dashboards writes Grafana's dashboards of Muslin, as JSON, from a table of
// panels: see Dashboards.
//
// Their conventions: a uid that stays, no id, the data source a variable, each
// panel with a description and a unit, tag muslin, links to the others. Footprint:
// none; the files of manifests/monitoring/dashboards are written by `go test
// ./hack/dashboards -update`.
package dashboards

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Panel is a graph or a number. In expressions $A stands for the selection of
// agents, $C for that of clusters, $R for the interval of rates.
type Panel struct {
	Title, Description string
	Unit               string // of Grafana: short, s, bytes, percentunit, …
	Kind               string // timeseries, stat or state-timeline
	Queries            []Query
}

// Query is an expression, and how its series are called: {{label}} is a label.
type Query struct{ Expr, Legend string }

// Dashboard is a page of panels.
type Dashboard struct {
	Name, Title, Description string
	Variables                []Variable
	Panels                   []Panel
}

// Variable is chosen at the top of a page: the values of a label.
type Variable struct{ Name, Metric string }

// Expr gives an expression as Grafana has it.
func Expr(e string) string {
	return strings.NewReplacer("$A", `cluster=~"$cluster",node=~"$node"`, "$C", `cluster=~"$cluster"`, "$R", "$__rate_interval").Replace(e)
}

type object = map[string]any

// JSON is the dashboard as Grafana reads it.
func (d Dashboard) JSON() ([]byte, error) {
	var panels []object
	x, y, high := 0, 0, 0
	for i, p := range d.Panels {
		w, h := 12, 8
		if p.Kind == "stat" {
			w, h = 6, 4
		}
		if x+w > 24 || i > 0 && h != high {
			x, y = 0, y+high
		}
		panels = append(panels, p.json(i+1, object{"x": x, "y": y, "w": w, "h": h}))
		x, high = x+w, h
	}
	variables := []object{{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}}
	for _, v := range d.Variables {
		variables = append(variables, v.json())
	}
	b, err := json.MarshalIndent(object{
		"id": nil, "uid": "muslin-" + d.Name, "title": "Muslin / " + d.Title, "description": d.Description, "tags": []string{"muslin"},
		"schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s", "time": object{"from": "now-3h", "to": "now"},
		"links": []object{{
			"type": "dashboards", "title": "Muslin", "tags": []string{"muslin"}, "asDropdown": true, "includeVars": true, "keepTime": true,
		}},
		"templating": object{"list": variables}, "panels": panels,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write dashboard %s: %w", d.Name, err)
	}
	return append(b, '\n'), nil
}

var source = object{"type": "prometheus", "uid": "${datasource}"}

func (p Panel) json(id int, place object) object {
	var targets []object
	for i, q := range p.Queries {
		targets = append(targets, object{"refId": string(rune('A' + i)), "datasource": source, "expr": Expr(q.Expr), "legendFormat": q.Legend})
	}
	return object{
		"id": id, "type": p.Kind, "title": p.Title, "description": p.Description, "datasource": source, "gridPos": place, "targets": targets,
		"fieldConfig": object{"defaults": object{"unit": p.Unit}, "overrides": []any{}},
	}
}

// json has the values chosen among those of the clusters chosen. Where there is no
// such label, as in a Prometheus of one cluster, "all" takes everything.
func (v Variable) json() object {
	from := v.Metric
	if v.Name != "cluster" {
		from += "{" + Expr("$C") + "}"
	}
	return object{
		"name": v.Name, "type": "query", "datasource": source, "query": object{"query": "label_values(" + from + ", " + v.Name + ")", "refId": v.Name},
		"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*", "current": object{"text": "All", "value": []string{"$__all"}},
	}
}
