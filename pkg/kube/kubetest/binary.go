package kubetest

import (
	"context"
	"fmt"
	"os"

	"github.com/muslin-net/muslin/hack/lab/kubelab"
)

// Binary gives the path of kubelab, which the lab and the tests share, and
// builds it when its sources have changed. The first build of a machine takes
// minutes. MUSLIN_KUBELAB names another,
// with a kubectl beside it.
func Binary() (string, error) {
	if path := os.Getenv("MUSLIN_KUBELAB"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("MUSLIN_KUBELAB: %w", err)
		}
		return path, nil
	}
	source, err := kubelab.FindSource("")
	if err != nil {
		return "", err
	}
	return kubelab.Build(context.Background(), source, kubelab.SharedDir, func(string, ...any) {})
}

// Root is the root of the repository. It panics outside of one, where no test
// can run.
func Root() string {
	source, err := kubelab.FindSource("")
	if err != nil {
		panic(err)
	}
	return source
}
