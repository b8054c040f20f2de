package scenario

import (
	"context"
	"slices"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// footprint is what the agents take when everything is at rest, one value a round and
// node.
type footprint struct {
	resident, goroutines []float64 // bytes; count
}

// enoughRounds are as many as it takes for a trend to be one: make test plays fewer.
const enoughRounds = 30

// measure adds what each agent takes now.
func (f *footprint) measure(ctx context.Context, c *chaos) {
	for _, node := range c.allNodes() {
		values, err := c.agentMetrics(ctx, node)
		if err != nil {
			c.errorf("metrics of %s: %v", node, err)
			return
		}
		f.resident = append(f.resident, values["process_resident_memory_bytes"])
		f.goroutines = append(f.goroutines, values["go_goroutines"])
	}
	if n := len(c.allNodes()); n > 0 {
		c.logf("resident MB %.1f, goroutines %.0f", slices.Max(f.resident[len(f.resident)-n:])/1e6, slices.Max(f.goroutines[len(f.goroutines)-n:]))
	}
}

// flat fails when the last third of a long run took over a tenth more than its first.
func (f *footprint) flat(t *testing.T) {
	t.Helper()
	for what, values := range map[string][]float64{"resident bytes": f.resident, "goroutines": f.goroutines} {
		third := len(values) / 3
		if third == 0 {
			continue
		}
		first, last := median(values[:third]), median(values[len(values)-third:])
		t.Logf("%s of an agent at rest: %.0f in the first third, %.0f in the last, ratio %.3f", what, first, last, last/first)
		if third >= enoughRounds/3 && last > 1.1*first {
			t.Errorf("%s grew from %.0f to %.0f", what, first, last)
		}
	}
}

// median needs a value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// agentMetrics are the gauges of an agent without labels.
func (c *chaos) agentMetrics(ctx context.Context, node string) (map[string]float64, error) {
	body, err := c.getFromAgent(ctx, node, "/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			if m.Gauge != nil && len(m.Label) == 0 {
				values[name] = m.GetGauge().GetValue()
			}
		}
	}
	return values, nil
}
