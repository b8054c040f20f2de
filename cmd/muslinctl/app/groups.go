package app

import "github.com/spf13/cobra"

// groups are the verbs, by the heading they stand under in the help.
func (t *Tool) groups() map[string][]*cobra.Command {
	return map[string][]*cobra.Command{
		groupObjects: {t.get(), t.create(), t.apply(), t.replace(), t.delete(), t.patch(), t.label(), t.validate(), t.ipam(), t.ippool()},
		groupLook:    {t.check(), t.compat(), t.explain(), t.node(), t.policy(), t.preview(), t.routerConfig(), t.top(), t.cluster()},
		groupOther:   {t.version()},
	}
}
