// Command imagecopy copies one image as `skopeo copy` does, through the library that skopeo is a front for.
//
// It is for benchmarks and tests, where the newest skopeo itself can't be had: the same defaults, any image
// accepted without a signature, no progress. A key of cosign's for -sign-by-sigstore-private-key is one without a
// password.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

const library = "go.podman.io/image/v5"

func main() {
	decompress := flag.Bool("dest-decompress", false, "write layers uncompressed (dir: only)")
	format := flag.String("dest-compress-format", "", "compress layers anew: gzip, zstd, zstd:chunked")
	verify := flag.Bool("src-tls-verify", true, "require HTTPS and a good certificate")
	certificates := flag.String("src-cert-dir", "", "directory with the registry's ca.crt")
	registries := flag.String("registries.d", "", "directory that says where signatures are put")
	key := flag.String("sign-by-sigstore-private-key", "", "sign with the key in this file")
	version := flag.Bool("version", false, "print the version of the library")
	flag.Parse()
	if *version {
		fmt.Println(libraryVersion())
		return
	}
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: imagecopy [options] SOURCE DESTINATION (docker://, oci: or dir:)")
		os.Exit(2)
	}
	source := &types.SystemContext{
		DockerCertPath:              *certificates,
		DockerInsecureSkipTLSVerify: types.NewOptionalBool(!*verify),
	}
	destination := &types.SystemContext{
		DirForceDecompress:          *decompress,
		DockerInsecureSkipTLSVerify: source.DockerInsecureSkipTLSVerify,
		RegistriesDirPath:           *registries,
	}
	options := &copy.Options{
		SourceCtx:                        source,
		DestinationCtx:                   destination,
		SignBySigstorePrivateKeyFile:     *key,
		SignSigstorePrivateKeyPassphrase: []byte{},
	}
	if err := copyImage(options, *format, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "imagecopy:", err)
		os.Exit(1)
	}
}

func copyImage(options *copy.Options, format, from, to string) error {
	fromRef, err := parse(from)
	if err != nil {
		return err
	}
	toRef, err := parse(to)
	if err != nil {
		return err
	}
	if format != "" {
		algorithm, err := compression.AlgorithmByName(format)
		if err != nil {
			return err
		}
		options.DestinationCtx.CompressionFormat = &algorithm
		options.ForceCompressionFormat = true
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	defer policy.Destroy()
	_, err = copy.Image(context.Background(), policy, toRef, fromRef, options)
	return err
}

func parse(name string) (types.ImageReference, error) {
	transport, rest, _ := strings.Cut(name, ":")
	switch transport {
	case "docker":
		return docker.ParseReference(rest)
	case "oci":
		return layout.ParseReference(rest)
	case "dir":
		return directory.NewReference(rest)
	}
	return nil, fmt.Errorf("%q is not docker://, oci: or dir:", name)
}

func libraryVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == library {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return "unknown"
}
