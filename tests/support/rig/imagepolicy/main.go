// Command imagepolicy answers, for many images in one run, whether containers/image takes them under a
// policy.json: the package by which podman, skopeo and CRI-O do, with the signatures of an image given.
//
// It reads one JSON object a line and answers with one a line. One with a "text" asks what that is as the name of
// an image, and nothing else. Bytes are in base64.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

type question struct {
	Policy     json.RawMessage `json:"policy"`
	Name       string          `json:"name"` // "": an image that has none
	Manifest   []byte          `json:"manifest"`
	Signatures [][]byte        `json:"signatures"`
	Text       *string         `json:"text"`
}

type answer struct {
	Error string `json:"error"` // "": it is taken
	Named string `json:"named"` // the text in full
}

// given is an image of which all that a policy looks at was given.
type given struct {
	reference  types.ImageReference
	manifest   []byte
	signatures [][]byte
}

func (g *given) Reference() types.ImageReference { return g.reference }

func (g *given) Manifest(context.Context) ([]byte, string, error) {
	return g.manifest, manifest.GuessMIMEType(g.manifest), nil
}

func (g *given) Signatures(context.Context) ([][]byte, error) { return g.signatures, nil }

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for in.More() {
		var q question
		if err := in.Decode(&q); err != nil {
			fmt.Fprintln(os.Stderr, "imagepolicy:", err)
			os.Exit(1)
		}
		if err := out.Encode(answered(q)); err != nil {
			os.Exit(1)
		}
	}
}

func answered(q question) answer {
	if q.Text != nil {
		named, err := reference.ParseNormalizedNamed(*q.Text)
		if err != nil {
			return answer{Error: err.Error()}
		}
		return answer{Named: named.String()}
	}
	if err := taken(q); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{}
}

func taken(q question) error {
	policy, err := signature.NewPolicyFromBytes(q.Policy)
	if err != nil {
		return err
	}
	var name types.ImageReference
	if q.Name == "" {
		name, err = directory.NewReference("/")
	} else {
		name, err = docker.ParseReference("//" + q.Name)
	}
	if err != nil {
		return err
	}
	judge, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer judge.Destroy()
	_, err = judge.IsRunningImageAllowed(context.Background(), &given{name, q.Manifest, q.Signatures})
	return err
}
