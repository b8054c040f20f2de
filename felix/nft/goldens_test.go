package nft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// TestGoldensAreRulesToNft has nft itself read the rules of every golden of the
// desired state, in a namespace of their own.
func TestGoldensAreRulesToNft(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("goldens: %d, %v", len(files), err)
	}
	ns := nstest.New(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rules, found := strings.Cut(string(text), "# rules\n")
		if !found {
			t.Errorf("%s: no rules", file)
			continue
		}
		if rules == "as in plain\n" || strings.HasPrefix(rules, "as in plain\n!") {
			continue
		}
		rules, _, _ = strings.Cut(rules, "\n}\n")
		cmd := ns.Command("nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(rules + "\n}\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: nft does not take the rules: %v: %s", file, err, out)
		}
	}
}
