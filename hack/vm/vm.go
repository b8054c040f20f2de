package vm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/vm/internal/spec"
)

// Options are the settings of a Run; the zero value is good.
type Options struct {
	Dir    string    // working directory of the command; empty: /
	Env    []string  // NAME=value, beside PATH, HOME and LANG
	Memory int       // MiB, also for what the command writes; 0: 2048
	CPUs   int       // 0: 2
	Cache  string    // where kernels are kept; empty: muslin/vm in the user's cache directory
	Kernel string    // the release of Debian whose kernel is started, as "bullseye"; empty: this machine's
	Links  []Link    // network devices of the guest: eth0 and so on
	Netns  string    // name of the network namespace of this machine that Loopback is in; empty: the caller's
	Output io.Writer // gets the output as it comes, too; may be nil
	Notes  io.Writer // gets remarks on what takes long; may be nil
}

// Run boots the machine, runs argv there as root and returns its standard
// output and error as one, and its exit status (128 and the signal's number if a
// signal ended it). argv[0] is looked up in the guest's PATH, which is Debian's
// for root; there is no standard input.
//
// An error means that the command did not run to its end: the machine did not
// boot, the program is not there, ctx ended. It holds the end of the guest's
// console.
func Run(ctx context.Context, o Options, argv ...string) (output []byte, status int, err error) {
	if len(argv) == 0 {
		return nil, 0, errors.New("run in a virtual machine: no command")
	}
	m, err := o.prepare(ctx, argv)
	if err != nil {
		return nil, 0, fmt.Errorf("prepare virtual machine: %w", err)
	}
	defer func() { _ = os.RemoveAll(m.dir) }()
	if err := m.run(ctx); err != nil {
		return m.output.Bytes(), 0, fmt.Errorf("run %q in a virtual machine: %w", strings.Join(argv, " "), err)
	}
	return m.output.Bytes(), m.result.Status, nil
}

// machine is one virtual machine, good for one run.
type machine struct {
	options        Options
	dir            string // temporary
	kernel, initrd string

	output bytes.Buffer
	result spec.Result
}

func (o Options) prepare(ctx context.Context, argv []string) (*machine, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("architecture %s is not supported: want amd64", runtime.GOARCH)
	}
	c, err := openCache(o.Cache, o.Kernel, o.Notes)
	if err != nil {
		return nil, err
	}
	defer c.close()
	k, err := c.kernel(ctx)
	if err != nil {
		return nil, err
	}
	guest, err := c.guest(ctx)
	if err != nil {
		return nil, err
	}
	modules, err := k.modules(ctx, o.bootModules())
	if err != nil {
		return nil, err
	}
	s := spec.Spec{
		ModuleDir: k.moduleDir(), Release: k.release,
		Argv: argv, Dir: cmp.Or(o.Dir, "/"), Env: append([]string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		}, o.Env...),
	}
	dir, err := os.MkdirTemp("", "muslin-vm-")
	if err != nil {
		return nil, err
	}
	m := &machine{options: o, dir: dir, kernel: k.image(), initrd: filepath.Join(dir, "initrd")}
	if err := writeInitrd(m.initrd, guest, modules, s); err != nil {
		return nil, errors.Join(fmt.Errorf("write initial file system: %w", err), os.RemoveAll(dir))
	}
	return m, nil
}

// Descriptors of qemu that carry what the guest writes to its ports.
const (
	outputFD = "/proc/self/fd/3"
	resultFD = "/proc/self/fd/4"
)

// args are qemu's. The kernel does not test the machine's timer: qemu has it, but late
// on a busy machine, and the kernel would give up.
func (m *machine) args() []string {
	return append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi", "-smp", strconv.Itoa(cmp.Or(m.options.CPUs, 2)), "-m", strconv.Itoa(cmp.Or(m.options.Memory, 2048)),
		"-kernel", m.kernel, "-initrd", m.initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",
		"-serial", "stdio",
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=root,mount_tag=" + spec.RootTag,
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=output,path=" + outputFD, "-device", "virtserialport,chardev=output,name=" + spec.OutputPort,
		"-chardev", "file,id=result,path=" + resultFD, "-device", "virtserialport,chardev=result,name=" + spec.ResultPort,
	}, m.options.links()...)
}

// run starts qemu and waits for its end and for the last word of the guest.
func (m *machine) run(ctx context.Context) error {
	output, outputIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer output.Close()
	result, resultIn, err := os.Pipe()
	if err != nil {
		outputIn.Close()
		return err
	}
	defer result.Close()
	var console bytes.Buffer
	command := m.options.command(ctx, "qemu-system-x86_64", m.args()...)
	command.ExtraFiles = []*os.File{outputIn, resultIn}
	command.Stdout, command.Stderr = &console, &console
	// A killed caller leaves no machine behind. The signal comes when the thread
	// that started the child ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = command.Start()
	outputIn.Close()
	resultIn.Close()
	if err != nil {
		return fmt.Errorf("%w (Debian: apt-get install qemu-system-x86)", err)
	}
	var word bytes.Buffer
	var copies sync.WaitGroup
	copies.Go(func() { drain(m.sink(), output) })
	copies.Go(func() { drain(&word, result) })
	err = command.Wait()
	copies.Wait()
	return m.conclude(ctx, err, word.Bytes(), console.String())
}

func (m *machine) sink() io.Writer {
	if m.options.Output == nil {
		return &m.output
	}
	return io.MultiWriter(&m.output, m.options.Output)
}

// drain reads to the end, whatever becomes of the writer: the guest must not
// wait for a reader that is gone.
func drain(to io.Writer, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil {
		_, _ = io.Copy(io.Discard, from)
	}
}

func (m *machine) conclude(ctx context.Context, qemu error, word []byte, console string) error {
	failed := func(err error) error {
		return fmt.Errorf("%w; the console's end:\n%s", err, console[max(0, len(console)-4000):])
	}
	switch {
	case ctx.Err() != nil:
		return failed(ctx.Err())
	case qemu != nil:
		return failed(fmt.Errorf("qemu: %w", qemu))
	}
	if err := json.Unmarshal(word, &m.result); err != nil {
		return failed(errors.New("the guest ended without a result"))
	}
	if m.result.Error != "" {
		return failed(errors.New(m.result.Error))
	}
	return nil
}
