package main

import (
	"context"
	"fmt"
	"strings"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	"go.podman.io/image/v5/docker/daemon"
	ociarchive "go.podman.io/image/v5/oci/archive"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/sif"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// Those that the tests ask about, and not those that this build has: the daemon's is compiled in by its name.
var transports = map[string]types.ImageTransport{
	"dir":            directory.Transport,
	"docker":         docker.Transport,
	"docker-archive": dockerarchive.Transport,
	"docker-daemon":  daemon.Transport,
	"oci":            layout.Transport,
	"oci-archive":    ociarchive.Transport,
	"sif":            sif.Transport,
}

// scopesOf answers by what names a policy knows an image, the most specific first, and, if there is a policy,
// whether that takes it. No transport's own "" is among the scopes.
func scopesOf(q question) answer {
	transport, rest, _ := strings.Cut(*q.Image, ":")
	known, ok := transports[transport]
	if !ok {
		return answer{Error: fmt.Sprintf("unknown transport %q", transport), Unread: true}
	}
	found, err := known.ParseReference(rest)
	if err != nil {
		return answer{Error: err.Error(), Unread: true}
	}
	result := answer{Scopes: []string{}}
	if identity := found.PolicyConfigurationIdentity(); identity != "" {
		result.Scopes = append(result.Scopes, identity)
	}
	result.Scopes = append(result.Scopes, found.PolicyConfigurationNamespaces()...)
	if len(q.Policy) > 0 {
		if err := allowed(q, found); err != nil {
			result.Error = err.Error()
		}
	}
	return result
}

func allowed(q question, reference types.ImageReference) error {
	policy, err := signature.NewPolicyFromBytes(q.Policy)
	if err != nil {
		return err
	}
	judge, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer judge.Destroy()
	_, err = judge.IsRunningImageAllowed(context.Background(), &unsigned{reference})
	return err
}

// unsigned is an image of which a policy can know the name alone.
type unsigned struct{ reference types.ImageReference }

func (u *unsigned) Reference() types.ImageReference { return u.reference }

func (u *unsigned) Manifest(context.Context) ([]byte, string, error) { return nil, "", nil }

func (u *unsigned) Signatures(context.Context) ([][]byte, error) { return nil, nil }
