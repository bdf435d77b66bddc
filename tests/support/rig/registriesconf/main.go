// Command registriesconf answers, for many configurations in one run, whom containers/image would ask for an
// image: the package that podman, skopeo and CRI-O read registries.conf with.
//
// It reads one JSON object a line and answers with one a line. Each has a directory that stands for /, the
// environment to read in, and names.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/shortnames"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// variables are all that a configuration is found by. HOME is not one: it is looked up once in a process.
var variables = []string{
	"CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE", "XDG_CONFIG_HOME", "_CONTAINERS_ROOTLESS_UID",
}

type question struct {
	Root    string            `json:"root"`
	Env     map[string]string `json:"env"`
	Conf    string            `json:"conf"`
	Aliases string            `json:"aliases"`
	Names   []string          `json:"names"`
	Short   []string          `json:"short"`
}

type endpoint struct {
	Reference string `json:"reference"`
	Insecure  bool   `json:"insecure"`
	Mirror    bool   `json:"mirror"`
	Namespace string `json:"namespace"`
	Blocked   bool   `json:"blocked"` // by the section of the name that is asked there
}

type asked struct {
	Error     string     `json:"error,omitempty"`
	Prefix    string     `json:"prefix"` // "": no section
	Blocked   bool       `json:"blocked"`
	Endpoints []endpoint `json:"endpoints"`
}

type resolved struct {
	Error      string   `json:"error,omitempty"`
	Candidates []string `json:"candidates"`
}

type answer struct {
	Error   string     `json:"error,omitempty"` // the configuration is refused
	Helpers []string   `json:"helpers"`
	Search  []string   `json:"search"`
	Mode    string     `json:"mode"`
	Names   []asked    `json:"names"`
	Short   []resolved `json:"short"`
}

var modes = map[types.ShortNameMode]string{
	types.ShortNameModeDisabled:   "disabled",
	types.ShortNameModeEnforcing:  "enforcing",
	types.ShortNameModePermissive: "permissive",
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for in.More() {
		var q question
		if err := in.Decode(&q); err != nil {
			fmt.Fprintln(os.Stderr, "registriesconf:", err)
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
	sysregistriesv2.InvalidateCache()
	sys := &types.SystemContext{
		RootForImplicitAbsolutePaths: q.Root,
		SystemRegistriesConfPath:     q.Conf,
		UserShortNameAliasConfPath:   q.Aliases,
	}
	var a answer
	var err error
	if a.Search, err = sysregistriesv2.UnqualifiedSearchRegistries(sys); err != nil {
		a.Error = err.Error()
		return a
	}
	a.Helpers, _ = sysregistriesv2.CredentialHelpers(sys)
	mode, _ := sysregistriesv2.GetShortNameMode(sys)
	a.Mode = modes[mode]
	for _, name := range q.Names {
		a.Names = append(a.Names, endpoints(sys, name))
	}
	for _, name := range q.Short {
		a.Short = append(a.Short, candidates(sys, name))
	}
	return a
}

func endpoints(sys *types.SystemContext, name string) asked {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return asked{Error: err.Error()}
	}
	named = reference.TagNameOnly(named)
	section, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return asked{Error: err.Error()}
	}
	if section == nil {
		return asked{Endpoints: []endpoint{{Reference: named.String()}}}
	}
	a := asked{Prefix: section.Prefix, Blocked: section.Blocked}
	sources, err := section.PullSourcesFromReference(named)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	for i, source := range sources {
		there, err := sysregistriesv2.FindRegistry(sys, source.Reference.Name())
		if err != nil {
			return asked{Error: err.Error()}
		}
		a.Endpoints = append(a.Endpoints, endpoint{
			Reference: source.Reference.String(),
			Insecure:  source.Endpoint.Insecure,
			Mirror:    i+1 < len(sources),
			Namespace: source.Endpoint.NamespaceProxy,
			Blocked:   there != nil && there.Blocked,
		})
	}
	return a
}

// candidates are what `podman pull` tries where there is no terminal.
func candidates(sys *types.SystemContext, name string) resolved {
	var r resolved
	if found, err := shortnames.Resolve(sys, name); err != nil {
		r.Error = err.Error()
	} else {
		for _, candidate := range found.PullCandidates {
			r.Candidates = append(r.Candidates, candidate.Value.String())
		}
	}
	return r
}
