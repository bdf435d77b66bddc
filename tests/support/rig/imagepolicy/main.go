// Command imagepolicy answers, for many images in one run, whether containers/image takes them under a
// policy.json: the package by which podman, skopeo and CRI-O do, with the signatures of an image given.
//
// It reads one JSON object a line and answers with one a line. One with a "text" asks what that is as the name of
// an image, and nothing else. Bytes are in base64. An "instance" is what was chosen from the image, an index: it
// is judged as well, by the same rules, and that has an answer of its own. One with an "image" asks by which names
// a policy knows it (scopes.go).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

type document struct {
	Manifest   []byte   `json:"manifest"`
	Signatures [][]byte `json:"signatures"`
}

type question struct {
	document
	Policy   json.RawMessage `json:"policy"`
	Name     string          `json:"name"` // "": an image that has none
	Instance *document       `json:"instance"`
	Text     *string         `json:"text"`
	Found    string          `json:"found"` // a registries.d: documents and signatures are those of the registry
	Image    *string         `json:"image"` // transport:details
}

type answer struct {
	Error    string   `json:"error"`    // "": it is taken
	Instance string   `json:"instance"` // the same for the instance
	Named    string   `json:"named"`    // the text in full
	Scopes   []string `json:"scopes"`
	Unread   bool     `json:"unread"` // the image is none
}

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
	if q.Image != nil {
		return scopesOf(q)
	}
	if q.Text != nil {
		named, err := reference.ParseNormalizedNamed(*q.Text)
		if err != nil {
			return answer{Error: err.Error()}
		}
		return answer{Named: named.String()}
	}
	found := answer{Error: said(taken(q, nil))}
	if q.Instance != nil {
		chosen, err := manifest.Digest(q.Instance.Manifest)
		if err == nil {
			err = taken(q, &chosen)
		}
		found.Instance = said(err)
	}
	return found
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func taken(q question, instance *digest.Digest) error {
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
	// In a directory: sources that are made outside of the library have no signatures but simple ones.
	root, err := os.MkdirTemp("", "imagepolicy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	source, err := given(root, q, instance)
	if q.Found != "" {
		source, err = found(root, q, name)
	}
	if err != nil {
		return err
	}
	defer source.Close()
	asked := image.UnparsedInstanceWithReference(image.UnparsedInstance(source, instance), name)
	allowed, err := judge.IsRunningImageAllowed(context.Background(), asked)
	if err == nil && !allowed {
		return errors.New("it is not allowed")
	}
	return err
}

// found is the image in its registry, by no configuration but what was asked for.
func found(root string, q question, name types.ImageReference) (types.ImageSource, error) {
	return name.NewImageSource(context.Background(), &types.SystemContext{
		RegistriesDirPath:           q.Found,
		SystemRegistriesConfPath:    os.DevNull,
		SystemRegistriesConfDirPath: root,
		AuthFilePath:                filepath.Join(root, "no-auth.json"),
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	})
}

func given(root string, q question, instance *digest.Digest) (types.ImageSource, error) {
	err := write(root, "", q.document)
	if err == nil && instance != nil {
		err = write(root, instance.Encoded()+".", *q.Instance)
	}
	if err != nil {
		return nil, err
	}
	reference, err := directory.NewReference(root)
	if err != nil {
		return nil, err
	}
	return reference.NewImageSource(context.Background(), nil)
}

func write(root, prefix string, d document) error {
	err := os.WriteFile(filepath.Join(root, prefix+"manifest.json"), d.Manifest, 0o600)
	for n, blob := range d.Signatures {
		name := fmt.Sprintf("%ssignature-%d", prefix, n+1)
		err = errors.Join(err, os.WriteFile(filepath.Join(root, name), blob, 0o600))
	}
	return err
}
