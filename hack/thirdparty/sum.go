package thirdparty

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// current reports whether dir was made from sources and is still as it was made.
func current(dir, sources string) bool {
	text, err := os.ReadFile(filepath.Join(dir, stamp))
	if err != nil {
		return false
	}
	from, as, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if from != sources {
		return false
	}
	is, err := sumOfTree(dir)
	return err == nil && is == as
}

// sumOfTree sums up names and contents of all files in dir but the stamp.
func sumOfTree(dir string) (string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != stamp {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return sumOfFiles(dir, files)
}

// sumOfFiles sums up names, relative to root, and contents.
func sumOfFiles(root string, files []string) (string, error) {
	sum := sha256.New()
	for _, f := range files {
		name, err := filepath.Rel(root, f)
		if err != nil {
			return "", err
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(text))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
