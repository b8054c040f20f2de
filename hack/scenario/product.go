package scenario

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/muslin-net/muslin/hack/image"
)

// product is Muslin as stories run it: the programs, and the image with them.
type product struct {
	dir     string // where the programs are; machines see it
	archive string
	image   image.Report
}

// products has one for each checkout: a process builds it once, for all its
// stories, and removes it with RemoveProducts.
var products struct {
	sync.Mutex
	bySource map[string]product
}

// build makes the programs and the image of a checkout, once.
func build(ctx context.Context, source string) (product, error) {
	products.Lock()
	defer products.Unlock()
	if p, made := products.bySource[source]; made {
		return p, nil
	}
	// A directory outside /tmp, which machines do not see.
	if err := os.MkdirAll("/var/lib/muslin-lab", 0o755); err != nil {
		return product{}, err
	}
	dir, err := os.MkdirTemp("/var/lib/muslin-lab", "scenario-")
	if err != nil {
		return product{}, err
	}
	p := product{dir: dir, archive: filepath.Join(dir, "muslin.tar")}
	files, err := image.Build(ctx, image.BuildOptions{Root: source, Out: dir}, image.Present(source))
	if err == nil {
		p.image, err = image.WriteFile(p.archive, image.Product(image.Ref, "dev", files))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return product{}, err
	}
	if products.bySource == nil {
		products.bySource = map[string]product{}
	}
	products.bySource[source] = p
	return p, nil
}

// RemoveProducts removes what this process has built.
func RemoveProducts() {
	products.Lock()
	defer products.Unlock()
	for source, p := range products.bySource {
		_ = os.RemoveAll(p.dir)
		delete(products.bySource, source)
	}
}
