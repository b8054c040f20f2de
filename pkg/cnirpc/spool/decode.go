package spool

import (
	"encoding/json"
	"fmt"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

// decode reads what package record wrote. Earlier releases wrote the
// configuration in base64.
func decode(b []byte) (client.Request, error) {
	var r struct {
		client.Request
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return client.Request{}, fmt.Errorf("decode: %w", err)
	}
	r.Request.Config = r.Config
	if len(r.Config) > 0 && r.Config[0] == '"' {
		if err := json.Unmarshal(r.Config, &r.Request.Config); err != nil {
			return client.Request{}, fmt.Errorf("decode config: %w", err)
		}
	}
	return r.Request, nil
}
