package scenario

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	RemoveProducts()
	os.Exit(code)
}
