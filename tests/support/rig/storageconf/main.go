// Command storageconf answers, for many configurations in one run, where containers/storage would keep images:
// the package that podman, buildah and skopeo read storage.conf with.
//
// It reads one JSON object a line and answers with one a line. Each has a directory that stands for /, and the
// environment to read in. Whether it runs for root is decided once in a process, by its own environment.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
)

// variables are all that a configuration is found by, and all that may be in one.
var variables = []string{
	"CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE", "STORAGE_DRIVER", "STORAGE_OPTS",
	"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "HOME", "USER", "WHERE",
}

type question struct {
	Root string            `json:"root"`
	Env  map[string]string `json:"env"`
}

type answer struct {
	Error      string   `json:"error,omitempty"`
	UID        int      `json:"uid"`
	Driver     string   `json:"driver"`
	GraphRoot  string   `json:"graphroot"`
	ImageStore string   `json:"imagestore"`
	Options    []string `json:"options"`
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for in.More() {
		var q question
		if err := in.Decode(&q); err != nil {
			fmt.Fprintln(os.Stderr, "storageconf:", err)
			os.Exit(1)
		}
		if err := out.Encode(answered(q)); err != nil {
			os.Exit(1)
		}
	}
}

func answered(q question) answer {
	for _, name := range variables {
		if value, ok := q.Env[name]; ok {
			os.Setenv(name, value)
		} else {
			os.Unsetenv(name)
		}
	}
	a := answer{UID: unshare.GetRootlessUID()}
	found, err := types.LoadStoreOptions(types.LoadOptions{RootForImplicitAbsolutePaths: q.Root})
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.Driver, a.GraphRoot, a.ImageStore = found.GraphDriverName, found.GraphRoot, found.ImageStore
	a.Options = found.GraphDriverOptions
	return a
}
