package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/kube"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

func root() *cobra.Command {
	var options lab.Options
	command := &cobra.Command{
		Use: "lab", Short: "A Kubernetes cluster in racks on this machine",
		SilenceUsage: true, SilenceErrors: true,
		TraverseChildren: true, // so that --name may stand before kubectl
	}
	flags := command.PersistentFlags()
	flags.StringVar(&options.Name, "name", lab.DefaultName, "prefix of everything the lab makes")
	flags.StringVar(&options.Dir, "dir", "", "state directory (default "+lab.DefaultBase+"/NAME)")
	command.AddCommand(
		up(&options), down(&options), status(&options), execute(&options), kubectl(&options),
		power(&options), link(&options), load(&options), deps(), keepReady(),
	)
	return command
}

func up(options *lab.Options) *cobra.Command {
	var agent string
	var setup []string
	command := &cobra.Command{
		Use: "up FILE", Short: "Start the lab of a topology file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := topology.Read(args[0])
			if err != nil {
				return err
			}
			options.Progress = os.Stderr
			options.Light.Agent = strings.Fields(agent)
			for _, line := range setup {
				options.Light.Setup = append(options.Light.Setup, strings.Fields(line))
			}
			l, err := lab.New(plan, *options)
			if err != nil {
				return err
			}
			phases, err := l.Up(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%-22s %7.1fs\n", "total", phases.Total().Seconds())
			return nil
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&options.Images, "image", nil, "OCI archive that full nodes import at each boot")
	flags.StringVar(&agent, "agent-cmd", "", "program run on light nodes, with its arguments")
	flags.StringArrayVar(&setup, "setup-cmd", nil, "program run once on light nodes before the agent")
	flags.StringArrayVar(&options.Light.Env, "agent-env", nil, "KEY=value for programs on light nodes")
	flags.StringArrayVar(&options.Share, "share", nil, "host directory that all machines see")
	flags.StringVar(&options.Source, "source", "", "directory in Muslin's source tree (default the working directory)")
	return command
}

func down(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the lab, whatever is left of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lab.Down(cmd.Context(), *options) },
	}
}

func status(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What runs, and how the nodes are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "MACHINE\tROLE\tRACK\tADDRESS\tPOWER\tPID\tREADY")
			for _, machine := range l.Status(cmd.Context()) {
				power, pid := "off", ""
				if machine.On {
					power, pid = "on", fmt.Sprint(machine.PID)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
					machine.Name, machine.Role, machine.Rack, machine.Address.Main(), power, pid, machine.Ready)
			}
			return table.Flush()
		},
	}
}

func execute(options *lab.Options) *cobra.Command {
	command := &cobra.Command{
		Use: "exec MACHINE -- CMD [ARG…]", Short: "Run a program in a machine", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			machine, argv := args[0], args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return errors.New("exec: no program named")
			}
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			return attach(l.Machine(machine).Command(cmd.Context(), argv...))
		},
	}
	command.Flags().SetInterspersed(false) // flags after MACHINE are the program's
	return command
}

// kubectl passes everything after its name on, flags too; so --name and --dir
// come before it.
func kubectl(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl ARG…", Short: "Run kubectl as administrator", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			return attach(l.KubectlCommand(cmd.Context(), args...))
		},
	}
}

func attach(command *exec.Cmd) error {
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

func power(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "power off|on MACHINE", Short: "Cut a machine's power, or boot it", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			switch args[0] {
			case "off":
				return l.Machine(args[1]).PowerOff(cmd.Context())
			case "on":
				return l.Machine(args[1]).PowerOn(cmd.Context())
			}
			return fmt.Errorf("power %s: want off or on", args[0])
		},
	}
}

func link(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "link down|up MACHINE", Short: "Pull a machine's network cables, or plug them in", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			switch args[0] {
			case "down":
				return l.Fabric.LinkDown(args[1])
			case "up":
				return l.Fabric.LinkUp(args[1])
			}
			return fmt.Errorf("link %s: want down or up", args[0])
		},
	}
}

func load(options *lab.Options) *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar [NODE…]", Short: "Import an OCI archive into full nodes", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*options)
			if err != nil {
				return err
			}
			return l.Kube.Load(cmd.Context(), args[0], args[1:]...)
		},
	}
}

func deps() *cobra.Command {
	return &cobra.Command{
		Use: "deps", Short: "Name the programs that this host lacks", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := lab.CheckDeps(); err != nil {
				return err
			}
			fmt.Println("all programs are there")
			return nil
		},
	}
}

// keepReady is what the lab itself runs in the control plane's machine.
func keepReady() *cobra.Command {
	return &cobra.Command{
		Use: "keep-ready KUBECONFIG NODE…", Hidden: true, Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kubeconfig, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			return kube.KeepReady(cmd.Context(), kubeconfig, args[1:], func(err error) {
				log.Warn("heartbeat failed", "error", err)
			})
		},
	}
}
