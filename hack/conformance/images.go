package conformance

import (
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/scenario"
)

// agnhostRefs are the images that the suites ask for, of this version of Kubernetes, of the
// Network Policy API and of cyclonus: agnhost twice, the same with cyclonus' worker, and for names one with the GNU C library,
// which ours has anyway.
var agnhostRefs = []string{
	"registry.k8s.io/e2e-test-images/agnhost:2.63.0",
	"registry.k8s.io/e2e-test-images/agnhost:2.45",
	"docker.io/mfenwick100/cyclonus-worker:latest",
	"registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
}

// dnsRef is what coredns.yaml asks for, pauseRef what the suite does where a pod has nothing to do.
const (
	dnsRef   = "muslin.test/coredns:1"
	pauseRef = "registry.k8s.io/pause:3.10.2"
)

// debian are the programs that cases run in pods beside agnhost, of the packages that
// `make conformance` installs. busybox stands for the rest; its sh and nc differ too much.
var debian = []string{"bash", "curl", "dash", "dig", "getent", "grep", "nc.openbsd", "nslookup"}

var links = []image.Symlink{{Path: "/bin/sh", Target: "dash"}, {Path: "/bin/nc", Target: "nc.openbsd"}}

const applets = "awk cat cut date env expr head hostname id ip ls mkdir ping ps rm sed seq sleep sort tail test timeout touch tr uniq wc wget xargs"

// images are those that the lab needs for the suites, of programs in dir.
func images(ctx context.Context, source, dir string) ([]image.Spec, error) {
	files, err := tools(ctx)
	if err != nil {
		return nil, err
	}
	kubernetes, err := moduleDir(ctx, filepath.Join(source, "hack/e2e"), "k8s.io/kubernetes")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		files = append(files, image.File{
			Path: "/" + name, Source: filepath.Join(kubernetes, "test/images/agnhost/porter", name), Mode: 0o644,
		})
	}
	specs := []image.Spec{{
		Ref: dnsRef, Entrypoint: []string{"/coredns"}, Compression: image.None,
		Files: []image.File{{Path: "/coredns", Source: filepath.Join(dir, "coredns")}},
	}, {
		Ref: pauseRef, Entrypoint: []string{"/probe", "pause"}, Compression: image.None,
		Files: []image.File{{Path: "/probe", Source: filepath.Join(dir, "probe")}},
	}}
	agnhost := image.Spec{
		Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: []string{"PATH=/bin:/"}, Compression: image.None,
		Files: append(files, image.File{Path: "/agnhost", Source: filepath.Join(dir, "agnhost")},
			image.File{Path: "/worker", Source: filepath.Join(dir, "worker")}),
		Dirs: []image.Dir{{Path: "/tmp", Mode: 0o777 | fs.ModeSticky}}, Symlinks: links,
	}
	for applet := range strings.FieldsSeq(applets) {
		agnhost.Symlinks = append(agnhost.Symlinks, image.Symlink{Path: "/bin/" + applet, Target: "busybox"})
	}
	for _, agnhost.Ref = range agnhostRefs {
		specs = append(specs, agnhost)
	}
	return specs, nil
}

// tools are Debian's programs, with the libraries that they load.
func tools(ctx context.Context) ([]image.File, error) {
	files := []image.File{{Path: "/etc/nsswitch.conf", Data: []byte("hosts: files dns\n")}}
	add := map[string]string{}
	for _, name := range append(debian, "busybox") {
		program, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("image of agnhost: %w: make conformance installs its package", err)
		}
		add["/bin/"+name] = program
	}
	for _, name := range debian {
		out, err := exec.CommandContext(ctx, "ldd", add["/bin/"+name]).Output()
		if err != nil {
			return nil, fmt.Errorf("image of agnhost: libraries of %s: %w", name, err)
		}
		for _, library := range libraries(string(out)) {
			add[library] = library
		}
	}
	for path, from := range add {
		files = append(files, image.File{Path: path, Source: from})
	}
	return files, nil
}

// libraries are the paths that ldd prints.
func libraries(ldd string) (paths []string) {
	for _, match := range libraryPath.FindAllStringSubmatch(ldd, -1) {
		paths = append(paths, match[1])
	}
	return paths
}

var libraryPath = regexp.MustCompile(`(/\S+) \(0x`)

// load puts the images on every node.
func load(ctx context.Context, c *scenario.Cluster, images []image.Spec) error {
	for i, spec := range images {
		archive := filepath.Join(c.Dir(), fmt.Sprintf("suites-%d.tar", i))
		if _, err := image.WriteFile(archive, spec); err != nil {
			return fmt.Errorf("write image %s: %w", spec.Ref, err)
		}
		if err := c.Kube.Load(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}
