package kind

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Column is a column of a table.
type Column struct {
	Head  string
	Value func(obj map[string]any) string
}

// Text is what stands at a dotted path, or fallback when nothing does.
func Text(obj map[string]any, path, fallback string) string {
	v := At(obj, path)
	switch v := v.(type) {
	case nil:
		return fallback
	case string:
		if v == "" {
			return fallback
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		words := make([]string, len(v))
		for i, x := range v {
			words[i] = fmt.Sprint(x)
		}
		return strings.Join(words, ",")
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fallback
	}
	return string(data)
}

// At is the value at a dotted path of maps, or nil.
func At(obj map[string]any, path string) any {
	var v any = obj
	for part := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}

func field(head, path, fallback string) Column {
	return Column{head, func(o map[string]any) string { return Text(o, path, fallback) }}
}

// first is the first of several paths that holds something.
func first(head, fallback string, paths ...string) Column {
	return Column{head, func(o map[string]any) string {
		for _, p := range paths {
			if t := Text(o, p, ""); t != "" {
				return t
			}
		}
		return fallback
	}}
}

func count(head, path string) Column {
	return Column{head, func(o map[string]any) string {
		list, _ := At(o, path).([]any)
		return strconv.Itoa(len(list))
	}}
}

var name = field("NAME", "metadata.name", "")
